//! Parses expressions: fields, conditions, dimensions.

use super::{ErrorKind, Parser, Result, error, expected, precedence};
use crate::influxql::ast::{DataType, Expr, FieldOrTag, Op};
use crate::influxql::duration;
use crate::influxql::lex::{Kind, Token, Word};

impl Parser<'_> {
    pub(super) fn expr(&mut self) -> Result<Expr> {
        self.nested(Self::chain)
    }

    /// Operands with operators between them.
    fn chain(&mut self) -> Result<Expr> {
        let mut root = self.operand()?;
        let mut tallest = self.height;
        let mut operators = 0;
        loop {
            let token = self.next();
            let Kind::Op(op) = token.kind else {
                self.put_back();
                self.height = tallest + operators;
                return Ok(root);
            };
            let right = if matches!(op, Op::EqRegex | Op::NotEqRegex) {
                self.height = 1;
                match self.regex()? {
                    Some(regex) => Expr::Regex(regex),
                    None => return Err(expected(&self.next(), "regex")),
                }
            } else {
                self.operand()?
            };
            operators += 1;
            tallest = tallest.max(self.height);
            self.check_height(tallest + operators)?;
            insert(&mut root, op, right);
        }
    }

    /// One operand.
    fn operand(&mut self) -> Result<Expr> {
        self.height = 1;
        let token = self.next();
        match token.kind {
            Kind::Open => {
                let inner = self.expr()?;
                self.expect(Kind::Close, ")")?;
                self.height += 1;
                Ok(Expr::Paren(Box::new(inner)))
            }
            Kind::Name => {
                if self.scan().kind == Kind::Open {
                    return self.call(token.text.into_owned());
                }
                self.put_back();
                self.put_back();
                self.variable()
            }
            Kind::Key(Word::Distinct) => self.distinct(),
            Kind::String => Ok(Expr::String(token.text.into_owned())),
            Kind::Number => number(&token),
            Kind::Integer => match (token.text.parse(), token.text.parse()) {
                (Ok(value), _) => Ok(Expr::Integer(value)),
                (_, Ok(value)) => Ok(Expr::Unsigned(value)),
                _ => Err(error(token.at, ErrorKind::Value("integer"))),
            },
            Kind::Duration => match duration::parse(&token.text) {
                Some(nanoseconds) => Ok(Expr::Duration(nanoseconds)),
                None => Err(error(token.at, ErrorKind::Value("duration"))),
            },
            Kind::Key(Word::True) => Ok(Expr::Boolean(true)),
            Kind::Key(Word::False) => Ok(Expr::Boolean(false)),
            Kind::Op(Op::Mul) => self.wildcard(),
            Kind::Op(Op::Add) => self.signed(false),
            Kind::Op(Op::Sub) => self.signed(true),
            // Only a bound parameter gives this token here, and no text can express it.
            Kind::Regex => Err(error(token.at, ErrorKind::Unsafe("a bound regular expression here"))),
            _ => Err(expected(&token, "identifier, string, number, bool")),
        }
    }

    /// What follows a sign. A literal takes the sign; InfluxDB multiplies anything else by 1 or -1.
    fn signed(&mut self, negative: bool) -> Result<Expr> {
        let token = self.next();
        if !matches!(token.kind, Kind::Number | Kind::Integer | Kind::Duration | Kind::Open | Kind::Name) {
            return Err(expected(&token, "identifier, number, duration, ("));
        }
        self.put_back();
        let operand = self.operand()?;
        Ok(match (operand, negative) {
            (Expr::Integer(value), true) => Expr::Integer(value.wrapping_neg()),
            // The smallest integer is above the largest one until its sign is applied.
            (Expr::Unsigned(value), true) if value == i64::MIN.unsigned_abs() => Expr::Integer(i64::MIN),
            (Expr::Unsigned(_), true) => return Err(error(token.at, ErrorKind::Value("integer: underflows int64"))),
            (Expr::Duration(value), true) => Expr::Duration(value.wrapping_neg()),
            (Expr::Number(text), true) => Expr::Number(match text.strip_prefix('-') {
                Some(positive) => positive.to_owned(),
                None => format!("-{text}"),
            }),
            (literal @ (Expr::Integer(_) | Expr::Unsigned(_) | Expr::Duration(_) | Expr::Number(_)), false) => literal,
            (other, true) => {
                self.height += 1;
                Expr::Negative(Box::new(other))
            }
            (other, false) => {
                self.height += 2;
                let product = Expr::Binary { op: Op::Mul, left: Box::new(Expr::Integer(1)), right: Box::new(other) };
                Expr::Paren(Box::new(product))
            }
        })
    }

    fn variable(&mut self) -> Result<Expr> {
        let parts = self.segments()?;
        if self.scan().kind != Kind::DoubleColon {
            self.put_back();
            return Ok(Expr::Variable { parts, of: None });
        }
        let token = self.scan();
        let of = match token.kind {
            Kind::Key(Word::Field) => Some(DataType::AnyField),
            Kind::Key(Word::Tag) => Some(DataType::Tag),
            Kind::Name => {
                let types = [
                    ("float", DataType::Float),
                    ("integer", DataType::Integer),
                    ("unsigned", DataType::Unsigned),
                    ("string", DataType::String),
                    ("boolean", DataType::Boolean),
                ];
                types.iter().find(|(name, _)| name.eq_ignore_ascii_case(&token.text)).map(|&(_, of)| of)
            }
            _ => None,
        };
        match of {
            Some(_) => Ok(Expr::Variable { parts, of }),
            None => Err(expected(&token, "float, integer, unsigned, string, boolean, field, tag")),
        }
    }

    fn wildcard(&mut self) -> Result<Expr> {
        if self.scan().kind != Kind::DoubleColon {
            self.put_back();
            return Ok(Expr::Wildcard(None));
        }
        let token = self.scan();
        match token.kind {
            Kind::Key(Word::Field) => Ok(Expr::Wildcard(Some(FieldOrTag::Field))),
            Kind::Key(Word::Tag) => Ok(Expr::Wildcard(Some(FieldOrTag::Tag))),
            _ => Err(expected(&token, "field, tag")),
        }
    }

    fn distinct(&mut self) -> Result<Expr> {
        let token = self.scan();
        match token.kind {
            Kind::Open => self.call("distinct".into()),
            Kind::Space => Ok(Expr::Distinct(self.name()?)),
            _ => Err(expected(&token, "(, identifier")),
        }
    }

    /// What follows `name(`.
    fn call(&mut self, name: String) -> Result<Expr> {
        let mut args = Vec::new();
        let mut tallest = 0;
        match self.regex()? {
            Some(regex) => args.push(Expr::Regex(regex)),
            None => {
                if self.scan().kind == Kind::Close {
                    self.height = 1;
                    return Ok(Expr::Call { name, args });
                }
                self.put_back();
                args.push(self.expr()?);
                tallest = self.height;
            }
        }
        while self.accept(Kind::Comma) {
            match self.regex()? {
                Some(regex) => args.push(Expr::Regex(regex)),
                None => {
                    args.push(self.expr()?);
                    tallest = tallest.max(self.height);
                }
            }
        }
        let token = self.scan();
        if token.kind != Kind::Close {
            return Err(expected(&token, ")"));
        }
        self.height = tallest.max(1) + 1;
        Ok(Expr::Call { name, args })
    }
}

fn number(token: &Token<'_>) -> Result<Expr> {
    match token.text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(Expr::Number(token.text.as_ref().into())),
        _ => Err(error(token.at, ErrorKind::Value("number"))),
    }
}

/// Inserts `op` and its right side according to precedence, going down the right sides. Equal operators group left.
fn insert(root: &mut Expr, op: Op, right: Expr) {
    let mut node = root;
    while binds_looser(node, op) {
        let Expr::Binary { right, .. } = node else { unreachable!("only operators bind") };
        node = right;
    }
    let left = std::mem::replace(node, Expr::Boolean(false));
    *node = Expr::Binary { op, left: Box::new(left), right: Box::new(right) };
}

fn binds_looser(node: &Expr, op: Op) -> bool {
    matches!(node, Expr::Binary { op: own, .. } if precedence(*own) < precedence(op))
}
