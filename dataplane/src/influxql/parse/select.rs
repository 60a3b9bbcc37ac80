//! Parses SELECT, its clauses and sources, and EXPLAIN.

use super::{ErrorKind, Parser, Result, error, expected, non_empty};
use crate::influxql::ast::{Expr, Field, Fill, Measurement, Name, Op, Order, Select, Source, Statement};
use crate::influxql::lex::{Kind, Word};
use crate::influxql::visit;

impl Parser<'_> {
    /// What follows SELECT. `target`: INTO is required.
    pub(super) fn select(&mut self, target: bool) -> Result<Select> {
        let fields = self.fields()?;
        let into = self.target(target)?;
        self.expect_key(Word::From, "FROM")?;
        Ok(Select {
            fields,
            into,
            sources: self.sources(true)?,
            condition: self.condition()?,
            dimensions: self.dimensions()?,
            fill: self.fill()?,
            order: self.order()?,
            limit: self.count(Word::Limit)?,
            offset: self.count(Word::Offset)?,
            slimit: self.count(Word::Slimit)?,
            soffset: self.count(Word::Soffset)?,
            tz: self.tz()?,
        })
    }

    /// What follows EXPLAIN.
    pub(super) fn explain(&mut self) -> Result<Statement> {
        let analyze = self.accept_key(Word::Analyze);
        self.expect_key(Word::Select, "SELECT")?;
        Ok(Statement::Explain { analyze, select: Box::new(self.select(false)?) })
    }

    fn fields(&mut self) -> Result<Vec<Field>> {
        let mut fields = Vec::new();
        loop {
            fields.push(self.field()?);
            if self.scan().kind != Kind::Comma {
                self.put_back();
                return Ok(fields);
            }
        }
    }

    fn field(&mut self) -> Result<Field> {
        let expr = match self.regex()? {
            Some(regex) => Expr::Regex(regex),
            None => {
                let at = self.next().at;
                self.put_back();
                let expr = self.expr()?;
                if holds_condition(&expr) {
                    return Err(error(at, ErrorKind::Refused("invalid operator in SELECT clause")));
                }
                expr
            }
        };
        let alias = if self.accept_key(Word::As) { non_empty(self.name()?) } else { None };
        self.skip_space();
        Ok(Field { expr, alias })
    }

    fn target(&mut self, required: bool) -> Result<Option<Measurement>> {
        let token = self.next();
        if token.kind != Kind::Key(Word::Into) {
            self.put_back();
            return if required { Err(expected(&token, "INTO")) } else { Ok(None) };
        }
        let mut names = self.segments()?;
        if names.len() < 3 && self.lexer.peek() == Some(b':') {
            self.expect(Kind::Colon, ":")?;
            self.expect_key(Word::Measurement, "MEASUREMENT")?;
            names.push(String::new());
        }
        // InfluxDB takes a target without a name as `:MEASUREMENT`.
        let name = match names.pop() {
            Some(name) if !name.is_empty() => Name::Text(name),
            _ => Name::Same,
        };
        Ok(Some(measurement(names, name)))
    }

    /// What follows FROM.
    pub(super) fn sources(&mut self, subqueries: bool) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        loop {
            sources.push(self.source(subqueries)?);
            if !self.accept(Kind::Comma) {
                return Ok(sources);
            }
        }
    }

    fn source(&mut self, subqueries: bool) -> Result<Source> {
        if let Some(regex) = self.regex()? {
            return Ok(Source::Measurement(measurement(Vec::new(), Name::Regex(regex))));
        }
        if subqueries && self.accept(Kind::Open) {
            self.expect_key(Word::Select, "SELECT")?;
            let select = self.nested(|parser| parser.select(false))?;
            self.expect(Kind::Close, ")")?;
            return Ok(Source::Subquery(Box::new(select)));
        }
        Ok(Source::Measurement(self.named_measurement()?))
    }

    /// A name or regular expression. Parts before it are parsed but have no effect.
    pub(super) fn name_or_regex(&mut self) -> Result<Name> {
        match self.regex()? {
            Some(regex) => Ok(Name::Regex(regex)),
            None => Ok(self.named_measurement()?.name),
        }
    }

    fn named_measurement(&mut self) -> Result<Measurement> {
        let mut names = self.segments()?;
        if names.len() < 3
            && let Some(regex) = self.regex()?
        {
            return Ok(measurement(names, Name::Regex(regex)));
        }
        let name = names.pop().expect("there is at least one");
        Ok(measurement(names, Name::Text(name)))
    }

    pub(super) fn condition(&mut self) -> Result<Option<Expr>> {
        if self.accept_key(Word::Where) { self.expr().map(Some) } else { Ok(None) }
    }

    pub(super) fn dimensions(&mut self) -> Result<Vec<Expr>> {
        let mut dimensions = Vec::new();
        if !self.accept_key(Word::Group) {
            return Ok(dimensions);
        }
        self.expect_key(Word::By, "BY")?;
        loop {
            match self.regex()? {
                Some(regex) => dimensions.push(Expr::Regex(regex)),
                None => {
                    dimensions.push(self.expr()?);
                    self.skip_space();
                }
            }
            if self.scan().kind != Kind::Comma {
                self.put_back();
                return Ok(dimensions);
            }
        }
    }

    /// The single argument of the next call, if its name is `name`.
    fn option(&mut self, name: &str, otherwise: &'static str) -> Result<Option<(usize, Expr)>> {
        let token = self.next();
        self.put_back();
        if token.kind != Kind::Name || !token.text.eq_ignore_ascii_case(name) {
            return Ok(None);
        }
        match self.expr()? {
            Expr::Call { mut args, .. } if args.len() == 1 => Ok(args.pop().map(|arg| (token.at, arg))),
            _ => Err(error(token.at, ErrorKind::Refused(otherwise))),
        }
    }

    fn fill(&mut self) -> Result<Option<Fill>> {
        let Some((at, arg)) = self.option("fill", "fill must be a function call with one argument")? else {
            return Ok(None);
        };
        let word = match &arg {
            Expr::Variable { parts, of: None } => parts.join("."),
            _ => String::new(),
        };
        match (word.as_str(), arg) {
            ("null", _) => Ok(Some(Fill::Null)),
            ("none", _) => Ok(Some(Fill::None)),
            ("previous", _) => Ok(Some(Fill::Previous)),
            ("linear", _) => Ok(Some(Fill::Linear)),
            (_, Expr::Integer(value)) => Ok(Some(Fill::Value(value.to_string()))),
            (_, Expr::Number(text)) => Ok(Some(Fill::Value(text))),
            _ => Err(error(at, ErrorKind::Refused("expected number argument in fill()"))),
        }
    }

    fn tz(&mut self) -> Result<Option<String>> {
        match self.option("tz", "tz must be a function call with one argument")? {
            None => Ok(None),
            Some((_, Expr::String(name))) => Ok(Some(name)),
            Some((at, _)) => Err(error(at, ErrorKind::Refused("expected string argument in tz()"))),
        }
    }

    pub(super) fn order(&mut self) -> Result<Option<Order>> {
        const ONLY_TIME: ErrorKind = ErrorKind::Refused("only ORDER BY time supported at this time");
        if !self.accept_key(Word::Order) {
            return Ok(None);
        }
        self.expect_key(Word::By, "BY")?;
        let token = self.next();
        let order = match token.kind {
            Kind::Key(direction @ (Word::Asc | Word::Desc)) => {
                Order { descending: direction == Word::Desc, field: None }
            }
            Kind::Name if token.text == "time" => {
                let descending = !self.accept_key(Word::Asc) && self.accept_key(Word::Desc);
                Order { descending, field: Some("time".into()) }
            }
            Kind::Name => return Err(error(token.at, ONLY_TIME)),
            _ => return Err(expected(&token, "identifier, ASC, DESC")),
        };
        if self.accept(Kind::Comma) {
            return Err(error(token.at, ONLY_TIME));
        }
        Ok(Some(order))
    }
}

/// `before`: the parts before the name, at most two.
fn measurement(mut before: Vec<String>, name: Name) -> Measurement {
    let rp = before.pop().and_then(non_empty);
    let db = before.pop().and_then(non_empty);
    Measurement { db, rp, name }
}

/// Whether `expr` has a comparison, AND or OR, which are only allowed in WHERE.
fn holds_condition(expr: &Expr) -> bool {
    let mut found = false;
    visit::walk(expr, &mut |expr| {
        found |= matches!(
            expr,
            Expr::Binary {
                op: Op::And
                    | Op::Or
                    | Op::Eq
                    | Op::NotEq
                    | Op::EqRegex
                    | Op::NotEqRegex
                    | Op::Lt
                    | Op::LtEq
                    | Op::Gt
                    | Op::GtEq,
                ..
            }
        );
    });
    found
}
