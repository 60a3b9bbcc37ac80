//! Types of names and expressions, as InfluxDB derives them before it reads data.
//!
//! None = unknown name. Pure; the known columns come from `probe`, the types of mathematical functions from
//! `functions`.

use std::collections::{BTreeMap, BTreeSet};

use fluxgate_dataplane::influxql::ast::{DataType, Expr, Field, Op, Select, Source};
use fluxgate_dataplane::influxql::visit;

/// A type; None for an unknown name.
pub type Type = Option<DataType>;

/// The result type of a mathematical function for arguments of these types, as the backends have it.
pub type Functions<'a> = &'a dyn Fn(&str, &[DataType]) -> Type;

/// The columns of all measurements of one FROM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownColumns {
    pub fields: BTreeMap<String, Type>,
    pub tags: BTreeSet<String>,
}

impl KnownColumns {
    /// Notes a field (or a tag read as one). The higher type stays.
    pub fn field(&mut self, name: &str, of: Type) {
        let known = self.fields.entry(name.to_owned()).or_insert(of);
        *known = higher(*known, of);
    }

    /// The type of an untyped `name`: a field comes before a tag.
    fn type_of(&self, name: &str) -> Type {
        let tag = self.tags.contains(name).then_some(DataType::Tag);
        higher(self.fields.get(name).copied().flatten(), tag)
    }
}

/// The higher of two types of one name, as in InfluxDB.
pub fn higher(a: Type, b: Type) -> Type {
    let rank = |of: Type| match of {
        Some(DataType::Float) => 7,
        Some(DataType::Integer) => 6,
        Some(DataType::Unsigned) => 5,
        Some(DataType::String) => 4,
        Some(DataType::Boolean) => 3,
        Some(DataType::Tag) => 2,
        Some(DataType::AnyField) => 1,
        None => 0,
    };
    if rank(a) >= rank(b) { a } else { b }
}

/// The type of `name` in a SELECT over `sources`. `known` are the columns of its measurements; its subqueries are
/// already typed.
pub fn of_name(name: &str, sources: &[Source], known: &KnownColumns, functions: Functions<'_>) -> Type {
    sources.iter().fold(known.type_of(name), |found, source| match source {
        Source::Measurement(_) => found,
        Source::Subquery(inner) => higher(found, of_column(name, inner, functions)),
    })
}

/// The columns of a SELECT after expansion. A wildcard that is left has expanded to nothing.
pub fn columns(select: &Select) -> impl Iterator<Item = &Field> {
    select.fields.iter().filter(|field| !is_open(&field.expr))
}

/// Whether a column stands for several: `*`, a regular expression, or a function of one.
pub fn is_open(expr: &Expr) -> bool {
    let mut open = false;
    visit::walk(expr, &mut |inner| open |= matches!(inner, Expr::Wildcard(_) | Expr::Regex(_)));
    open
}

/// The type of a column of a typed subquery. Its dimensions appear as tags outside.
fn of_column(name: &str, inner: &Select, functions: Functions<'_>) -> Type {
    let column = columns(inner).find_map(|field| {
        if field_name(field) == name {
            return Some(&field.expr);
        }
        // top() and bottom() also return the tags in their arguments, except the last argument, which is the count.
        match &field.expr {
            Expr::Call { name: call, args } if is_top_or_bottom(call) && args.len() > 2 => {
                args[1..args.len() - 1].iter().find(|arg| variable_name(arg).as_deref() == Some(name))
            }
            _ => None,
        }
    });
    let of = column.and_then(|expr| of_expr(expr, functions));
    let is_dimension = || inner.dimensions.iter().any(|dim| variable_name(dim).as_deref() == Some(name));
    if of.is_none() && is_dimension() { Some(DataType::Tag) } else { of }
}

/// The type of a typed expression. None also for incompatible operands, which a backend reports.
pub fn of_expr(expr: &Expr, functions: Functions<'_>) -> Type {
    evaluate(expr, functions).unwrap_or_default()
}

/// Operands with incompatible types.
struct Mismatch;

fn evaluate(expr: &Expr, functions: Functions<'_>) -> Result<Type, Mismatch> {
    let evaluate = |expr: &Expr| evaluate(expr, functions);
    Ok(match expr {
        Expr::Variable { of: Some(DataType::AnyField), .. } => None,
        Expr::Variable { of, .. } => *of,
        Expr::Paren(inner) => evaluate(inner)?,
        Expr::Negative(inner) => arithmetic(Some(DataType::Integer), Op::Mul, evaluate(inner)?, true)?,
        Expr::Binary { op, left, right } => {
            let literal = matches!(**left, Expr::Integer(_)) || matches!(**right, Expr::Integer(_));
            arithmetic(evaluate(left)?, *op, evaluate(right)?, literal)?
        }
        Expr::Call { name, args } => {
            let name = name.to_ascii_lowercase();
            if is_math(&name) {
                let types = args.iter().map(evaluate).collect::<Result<Vec<_>, _>>()?;
                return Ok(types.into_iter().collect::<Option<Vec<_>>>().and_then(|types| functions(&name, &types)));
            }
            of_call(&name, args.first().map_or(Ok(None), evaluate)?)
        }
        Expr::Number(_) => Some(DataType::Float),
        Expr::Integer(_) => Some(DataType::Integer),
        Expr::Unsigned(_) => Some(DataType::Unsigned),
        Expr::String(_) => Some(DataType::String),
        Expr::Boolean(_) => Some(DataType::Boolean),
        Expr::Wildcard(_) | Expr::Regex(_) | Expr::Duration(_) | Expr::Distinct(_) => None,
    })
}

/// A quotient of integers has the type integer, although its value may have a fraction: InfluxDB truncates it where a
/// subquery's column is read.
fn arithmetic(left: Type, op: Op, right: Type, literal: bool) -> Result<Type, Mismatch> {
    use DataType::{Boolean, Float, Integer, Unsigned};
    let (Some(a), Some(b)) = (left, right) else { return Ok(higher(left, right)) };
    let whole = |of| matches!(of, Integer | Unsigned);
    let bits = matches!(op, Op::BitAnd | Op::BitOr | Op::BitXor);
    match (a, b) {
        (Boolean, Boolean) if bits => Ok(Some(Boolean)),
        (Integer, Integer) | (Unsigned, Unsigned) => Ok(Some(a)),
        // InfluxDB requires a cast, except for literals.
        (Integer, Unsigned) | (Unsigned, Integer) if literal => Ok(Some(Unsigned)),
        (Float, Float) if !bits => Ok(Some(Float)),
        (Float, other) | (other, Float) if whole(other) && !bits => Ok(Some(Float)),
        _ => Err(Mismatch),
    }
}

/// Whether the result type of a function is another one in other versions of InfluxDB: before 1.7, `sqrt()` of an
/// integer is typed as an integer, and a subquery's column is truncated to it.
fn is_math(name: &str) -> bool {
    matches!(
        name,
        "abs"
            | "acos"
            | "asin"
            | "atan"
            | "atan2"
            | "ceil"
            | "cos"
            | "exp"
            | "floor"
            | "ln"
            | "log"
            | "log10"
            | "log2"
            | "pow"
            | "round"
            | "sin"
            | "sqrt"
            | "tan"
    )
}

/// The result type of another function, from the type of its first argument.
fn of_call(name: &str, first: Type) -> Type {
    match name {
        "count" | "elapsed" => Some(DataType::Integer),
        "mean"
        | "median"
        | "integral"
        | "stddev"
        | "derivative"
        | "non_negative_derivative"
        | "moving_average"
        | "exponential_moving_average"
        | "double_exponential_moving_average"
        | "triple_exponential_moving_average"
        | "relative_strength_index"
        | "triple_exponential_derivative"
        | "kaufmans_efficiency_ratio"
        | "kaufmans_adaptive_moving_average"
        | "chande_momentum_oscillator"
        | "holt_winters"
        | "holt_winters_with_fit" => Some(DataType::Float),
        _ => first,
    }
}

pub fn is_top_or_bottom(name: &str) -> bool {
    name.eq_ignore_ascii_case("top") || name.eq_ignore_ascii_case("bottom")
}

/// The name of a variable; None for other expressions.
pub fn variable_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Variable { parts, .. } => Some(parts.join(".")),
        _ => None,
    }
}

/// The name of a column, before equal names get numbers.
pub fn field_name(field: &Field) -> String {
    field.alias.clone().unwrap_or_else(|| expr_name(&field.expr))
}

fn expr_name(expr: &Expr) -> String {
    match expr {
        Expr::Call { name, .. } => name.to_ascii_lowercase(),
        Expr::Paren(inner) => expr_name(inner),
        Expr::Variable { parts, .. } => parts.join("."),
        Expr::Binary { .. } | Expr::Negative(_) => {
            let mut names = Vec::new();
            operand_names(expr, &mut names);
            names.join("_")
        }
        _ => String::new(),
    }
}

/// The parts of the name of a sum or product. Arguments of functions are left out.
fn operand_names(expr: &Expr, names: &mut Vec<String>) {
    match expr {
        Expr::Variable { .. } | Expr::Call { .. } => names.push(expr_name(expr)),
        Expr::Paren(inner) | Expr::Negative(inner) => operand_names(inner, names),
        Expr::Binary { left, right, .. } => {
            operand_names(left, names);
            operand_names(right, names);
        }
        _ => {}
    }
}
