//! Parses tokens into statements: one method for each construct; up to three tokens can be put back.
//!
//! The grammar is that of InfluxDB's parser with all its quirks, since both must accept the same texts. For example,
//! where a token is put back and the *text* behind it is examined ([`Parser::regex`]), `m,/x/` is an error and `m, /x/`
//! is not. The steps are therefore in InfluxDB's order.
//!
//! [`Depth`] is limited: nesting, and chains like `a OR b OR ...`, which also make deep trees.

use std::borrow::Cow;
use std::fmt;

use super::ast::{Op, Statement};
use super::bind::{Params, Value};
use super::lex::{Kind, Lexer, Token, Word, is_space};
use super::{duration, regex};
use crate::limits::{
    QUERY_BYTES_MAX, QUERY_DEEP_EXPR_HEIGHT_MAX, QUERY_DEEP_NESTING_MAX, QUERY_EXPR_HEIGHT_MAX, QUERY_NESTING_MAX,
    QUERY_SEVERAL_EXPR_HEIGHT_MAX, QUERY_SEVERAL_NESTING_MAX,
};

mod expr;
mod select;
mod show;
mod structure;
mod unsupported;

/// Why a text cannot be parsed. The client's fault unless [`ours`](Self::ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Byte offset of the token that is wrong.
    pub at: u32,
    pub kind: ErrorKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Another token is expected here.
    Expected(&'static str),
    /// A number or duration out of range, or an unknown unit.
    Value(&'static str),
    /// Valid grammar, but InfluxDB refuses it while parsing.
    Refused(&'static str),
    /// `$name` without a value.
    Parameter,
    Regex,
    /// Above a limit of ours; InfluxDB has none.
    Beyond(&'static str),
    /// Above one of the [`Depth`] that was asked for.
    TooDeep(&'static str),
    /// InfluxDB accepts it, but the result is unreliable or no text can express it.
    Unsafe(&'static str),
}

impl ParseError {
    /// Whether InfluxDB may accept the text, so that no backend may get it unparsed.
    pub fn ours(&self) -> bool {
        matches!(self.kind, ErrorKind::Beyond(_) | ErrorKind::TooDeep(_) | ErrorKind::Unsafe(_))
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Expected(what) => write!(f, "expected {what}")?,
            ErrorKind::Value(what) => write!(f, "invalid {what}")?,
            ErrorKind::Refused(why) => f.write_str(why)?,
            ErrorKind::Parameter => f.write_str("missing parameter")?,
            ErrorKind::Regex => f.write_str("invalid regular expression")?,
            ErrorKind::Beyond(what) | ErrorKind::TooDeep(what) => write!(f, "{what} is beyond the proxy's limit")?,
            ErrorKind::Unsafe(what) => write!(f, "{what} is not supported by the proxy")?,
        }
        write!(f, " at byte {}", self.at)
    }
}

impl std::error::Error for ParseError {}

/// How deep a tree may be, and so how much stack those need who walk it.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    nesting: usize,
    height: usize,
}

impl Depth {
    /// The usual stack of a thread is enough.
    pub const USUAL: Self = Self { nesting: QUERY_NESTING_MAX, height: QUERY_EXPR_HEIGHT_MAX };
    /// Of statements that several backends answer: on the same stack as below.
    pub const SEVERAL: Self = Self { nesting: QUERY_SEVERAL_NESTING_MAX, height: QUERY_SEVERAL_EXPR_HEIGHT_MAX };
    /// Only on a stack of `QUERY_DEEP_STACK_BYTES`, where the tree must be dropped as well.
    pub const DEEP: Self = Self { nesting: QUERY_DEEP_NESTING_MAX, height: QUERY_DEEP_EXPR_HEIGHT_MAX };
}

/// Parses all statements of `text`, in order. Ignores white space around it and empty statements, so a text of only `;`
/// and comments gives an empty list. Does not check whether a time zone exists.
pub fn parse(text: &str, params: &Params) -> Result<Vec<Statement>, ParseError> {
    parse_within(Depth::USUAL, text, params)
}

/// As [`parse`], with trees of another depth.
pub fn parse_within(depth: Depth, text: &str, params: &Params) -> Result<Vec<Statement>, ParseError> {
    let bound = |kind| Err(ParseError { at: 0, kind });
    if text.len() > QUERY_BYTES_MAX {
        return bound(ErrorKind::Beyond("the query's length"));
    }
    if let Some(at) = text.bytes().position(|byte| byte == 0) {
        return Err(ParseError { at: at as u32, kind: ErrorKind::Unsafe("a NUL byte") });
    }
    let start = text.len() - text.trim_start().len();
    let shift = |e: ParseError| ParseError { at: e.at + start as u32, ..e };
    Parser::new(depth, text.trim(), params).statements().map_err(shift)
}

/// Why a request has no statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unparsed {
    /// For the client.
    pub text: String,
    /// As [`ParseError::ours`].
    pub ours: bool,
    /// Deeper than was asked for.
    pub too_deep: bool,
}

/// Parses the text of a request with its `params`, a JSON text; empty = not given.
pub fn parse_request(depth: Depth, q: &str, params: &str) -> Result<Vec<Statement>, Unparsed> {
    let params = match params {
        "" => Params::default(),
        json => Params::from_json(json).map_err(|error| Unparsed {
            text: error.to_string(),
            ours: false,
            too_deep: false,
        })?,
    };
    parse_within(depth, q, &params).map_err(|error| Unparsed {
        text: format!("error parsing query: {error}"),
        ours: error.ours(),
        too_deep: matches!(error.kind, ErrorKind::TooDeep(_)),
    })
}

type Result<T, E = ParseError> = std::result::Result<T, E>;

struct Parser<'a> {
    lexer: Lexer<'a>,
    params: &'a Params,
    /// A ring of the last tokens; `back` of them have been put back.
    ring: [Token<'a>; 3],
    last: usize,
    back: usize,
    depth: Depth,
    /// Number of open expressions and subqueries.
    nesting: usize,
    /// Height of the expression that was parsed last.
    height: usize,
}

impl<'a> Parser<'a> {
    fn new(depth: Depth, text: &'a str, params: &'a Params) -> Self {
        let none = || Token { kind: Kind::End, text: Cow::Borrowed(""), at: 0 };
        let ring = [none(), none(), none()];
        Self { lexer: Lexer::new(text), params, ring, last: 0, back: 0, depth, nesting: 0, height: 0 }
    }

    fn statements(&mut self) -> Result<Vec<Statement>> {
        let mut statements = Vec::new();
        let mut separated = true;
        loop {
            let token = self.next();
            match token.kind {
                Kind::End => return Ok(statements),
                Kind::Semicolon => separated = true,
                _ if !separated => return Err(expected(&token, ";")),
                _ => {
                    self.put_back();
                    statements.push(self.statement()?);
                    separated = false;
                }
            }
        }
    }

    fn statement(&mut self) -> Result<Statement> {
        let token = self.next();
        match token.kind {
            Kind::Key(Word::Select) => Ok(Statement::Select(Box::new(self.select(false)?))),
            Kind::Key(Word::Explain) => self.explain(),
            Kind::Key(Word::Show) => self.show(),
            Kind::Key(Word::Create) => self.create(),
            Kind::Key(Word::Alter) => self.alter(),
            Kind::Key(Word::Drop) => self.drop(),
            Kind::Key(Word::Delete) => self.delete(),
            Kind::Key(Word::Grant) => self.grant(),
            Kind::Key(Word::Revoke) => self.revoke(),
            Kind::Key(Word::Set) => self.set_password(),
            Kind::Key(Word::Kill) => self.kill_query(),
            _ => Err(expected(&token, "SELECT, DELETE, SHOW, CREATE, DROP, EXPLAIN, GRANT, REVOKE, ALTER, SET, KILL")),
        }
    }

    // Tokens.

    /// The next token of any kind. A bound parameter is replaced by its value.
    fn scan(&mut self) -> Token<'a> {
        self.scan_with(Lexer::scan)
    }

    fn scan_with(&mut self, scan: fn(&mut Lexer<'a>) -> Token<'a>) -> Token<'a> {
        if self.back > 0 {
            self.back -= 1;
        } else {
            self.last = (self.last + 1) % self.ring.len();
            self.ring[self.last] = scan(&mut self.lexer);
        }
        let size = self.ring.len();
        let token = self.ring[(self.last + size - self.back) % size].clone();
        if token.kind == Kind::Param
            && let Some(Value::Token(kind, text)) = self.params.value(&token.text)
        {
            return Token { kind: *kind, text: Cow::Borrowed(text), at: token.at };
        }
        token
    }

    /// The next token that is neither white space nor a comment.
    fn next(&mut self) -> Token<'a> {
        loop {
            let token = self.scan();
            if !matches!(token.kind, Kind::Space | Kind::Comment) {
                return token;
            }
        }
    }

    /// Makes the last token the next one again; up to three can be put back.
    fn put_back(&mut self) {
        self.back += 1;
        debug_assert!(self.back <= self.ring.len());
    }

    fn skip_space(&mut self) {
        if self.scan().kind != Kind::Space {
            self.put_back();
        }
    }

    /// Takes the next token if it has this kind.
    fn accept(&mut self, kind: Kind) -> bool {
        let found = self.next().kind == kind;
        if !found {
            self.put_back();
        }
        found
    }

    fn accept_key(&mut self, key: Word) -> bool {
        self.accept(Kind::Key(key))
    }

    fn expect(&mut self, kind: Kind, what: &'static str) -> Result<()> {
        let token = self.next();
        if token.kind == kind { Ok(()) } else { Err(expected(&token, what)) }
    }

    fn expect_key(&mut self, key: Word, what: &'static str) -> Result<()> {
        self.expect(Kind::Key(key), what)
    }

    // Values.

    fn name(&mut self) -> Result<String> {
        let token = self.next();
        if token.kind != Kind::Name {
            return Err(expected(&token, "identifier"));
        }
        Ok(token.text.into_owned())
    }

    /// Names separated by commas.
    fn names(&mut self) -> Result<Vec<String>> {
        let mut names = vec![self.name()?];
        while self.accept(Kind::Comma) {
            names.push(self.name()?);
        }
        Ok(names)
    }

    /// Up to three names separated by points. Before a regular expression or `:MEASUREMENT` the last point is taken,
    /// but not what follows. `db..m` has an empty name in the middle.
    fn segments(&mut self) -> Result<Vec<String>> {
        let start = self.lexer.at();
        let mut names = vec![self.name()?];
        loop {
            if self.scan().kind != Kind::Dot {
                self.put_back();
                break;
            }
            match self.lexer.peek() {
                Some(b'/' | b':') => break,
                Some(b'.') => names.push(String::new()),
                _ => names.push(self.name()?),
            }
        }
        if names.len() > 3 {
            return Err(error(start, ErrorKind::Refused("too many segments in a name")));
        }
        Ok(names)
    }

    fn string(&mut self) -> Result<String> {
        let token = self.next();
        if token.kind != Kind::String {
            return Err(expected(&token, "string"));
        }
        Ok(token.text.into_owned())
    }

    fn unsigned(&mut self) -> Result<u64> {
        let token = self.integer()?;
        token.text.parse().map_err(|_| error(token.at, ErrorKind::Value("integer")))
    }

    /// Number of copies: from 1 up to the largest 32-bit number.
    fn replication(&mut self) -> Result<u64> {
        let token = self.integer()?;
        let value = token.text.parse().ok().filter(|n| (1..=i32::MAX as u64).contains(n));
        value.ok_or(error(token.at, ErrorKind::Value("replication: must be 1 <= n <= 2147483647")))
    }

    /// LIMIT and similar clauses. A number that is too large becomes the largest one.
    fn count(&mut self, key: Word) -> Result<Option<u64>> {
        if !self.accept_key(key) {
            return Ok(None);
        }
        let token = self.integer()?;
        match token.text.parse::<i64>() {
            Ok(count) if count < 0 => Err(error(token.at, ErrorKind::Value("count: must be >= 0"))),
            Ok(count) => Ok(Some(count as u64)),
            Err(_) => Ok(Some(i64::MAX as u64)),
        }
    }

    fn integer(&mut self) -> Result<Token<'a>> {
        let token = self.next();
        if token.kind == Kind::Integer { Ok(token) } else { Err(expected(&token, "integer")) }
    }

    /// Nanoseconds; INF is 0.
    fn duration_or_inf(&mut self) -> Result<i64> {
        if self.accept_key(Word::Inf) { Ok(0) } else { self.duration() }
    }

    fn duration(&mut self) -> Result<i64> {
        let token = self.next();
        if token.kind != Kind::Duration {
            return Err(expected(&token, "duration"));
        }
        match duration::parse(&token.text) {
            None => Err(error(token.at, ErrorKind::Value("duration"))),
            // Only a bound value can have a sign of its own.
            Some(nanoseconds) if nanoseconds < 0 => Err(error(token.at, ErrorKind::Unsafe("a negative duration here"))),
            Some(nanoseconds) => Ok(nanoseconds),
        }
    }

    /// A regular expression, if one comes next. It is found by a `/` in the text behind all tokens taken so far,
    /// including one that was put back. InfluxDB then stumbles over that token, and so does this parser.
    fn regex(&mut self) -> Result<Option<String>> {
        if self.lexer.peek().is_some_and(is_space) {
            self.skip_space();
        }
        match self.lexer.peek() {
            Some(b'/') => {}
            Some(b'$') => {
                let kind = self.scan().kind;
                self.put_back();
                if kind != Kind::Regex {
                    return Ok(None);
                }
            }
            _ => return Ok(None),
        }
        let token = self.scan_with(Lexer::scan_regex);
        if token.kind != Kind::Regex {
            return Err(expected(&token, "regex"));
        }
        if regex::is_bad(&token.text) {
            return Err(error(token.at, ErrorKind::Regex));
        }
        if token.text.ends_with('\\') {
            return Err(error(token.at, ErrorKind::Unsafe("a bound regular expression with a backslash at its end")));
        }
        if token.text.contains('\n') {
            return Err(error(token.at, ErrorKind::Unsafe("a bound regular expression with a line break")));
        }
        Ok(Some(token.text.into_owned()))
    }

    /// Runs `read` one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.nesting == self.depth.nesting {
            return Err(error(self.lexer.at(), ErrorKind::TooDeep("the depth of parentheses")));
        }
        self.nesting += 1;
        let result = read(self);
        self.nesting -= 1;
        result
    }

    fn check_height(&self, height: usize) -> Result<()> {
        if height > self.depth.height {
            return Err(error(self.lexer.at(), ErrorKind::TooDeep("the number of operators")));
        }
        Ok(())
    }
}

fn error(at: usize, kind: ErrorKind) -> ParseError {
    ParseError { at: at as u32, kind }
}

/// The error for `token` where `what` is expected.
fn expected(token: &Token<'_>, what: &'static str) -> ParseError {
    let kind = if token.kind == Kind::Param { ErrorKind::Parameter } else { ErrorKind::Expected(what) };
    error(token.at, kind)
}

/// An empty name counts as none.
fn non_empty(name: String) -> Option<String> {
    (!name.is_empty()).then_some(name)
}

/// How tightly an operator binds.
pub(super) fn precedence(op: Op) -> u8 {
    match op {
        Op::Or => 1,
        Op::And => 2,
        Op::Eq | Op::NotEq | Op::EqRegex | Op::NotEqRegex | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq => 3,
        Op::Add | Op::Sub | Op::BitOr | Op::BitXor => 4,
        Op::Mul | Op::Div | Op::Mod | Op::BitAnd => 5,
    }
}
