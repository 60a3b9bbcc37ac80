//! Splits text into tokens.
//!
//! Lexing depends on the grammar in one place: `/` opens a regular expression only where the parser asks for one
//! ([`Lexer::scan_regex`]). Elsewhere it divides, or opens a comment as `/*`. White space and comments are tokens,
//! since some constructs must not contain any (`mean(`, `a.b`, `x::float`).
//!
//! CR and CRLF count as LF. The text has no NUL (the parser checks that); InfluxDB takes a NUL as its end. Not here:
//! bind parameters (`Kind::Param` is only a name), what a token means.

use std::borrow::Cow;

use super::ast::Op;

#[derive(Clone, Debug)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    /// For names, values and parameters: without quotes and escapes. Otherwise empty.
    pub text: Cow<'a, str>,
    /// Byte offset.
    pub at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    End,
    /// Not a token: an unknown character, an unfinished string or comment, an invalid escape.
    Illegal,
    Space,
    Comment,
    Name,
    /// `$name`; the name may be empty.
    Param,
    String,
    Integer,
    /// Has a point, also in the text.
    Number,
    /// Digits and letters. Whether the units exist is checked later.
    Duration,
    Regex,
    /// A regular expression that does not end.
    RegexOpen,
    /// Includes AND and OR, and the wildcard as `Mul`.
    Op(Op),
    Open,
    Close,
    Comma,
    Semicolon,
    Dot,
    Colon,
    DoubleColon,
    Key(Word),
}

macro_rules! keys {
    ($($key:ident)*) => {
        /// Words that are names only when quoted, without AND and OR.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Word { $($key),* }

        /// Their texts; the case does not matter.
        const KEYS: &[(&str, Word)] = &[$((stringify!($key), Word::$key)),*];
    };
}

keys! {
    All Alter Analyze Any As Asc Begin By Cardinality Continuous Create Database Databases Default Delete Desc
    Destinations Diagnostics Distinct Drop Duration End Every Exact Explain False Field For From Grant Grants Group
    Groups In Inf Insert Into Key Keys Kill Limit Measurement Measurements Name Offset On Order Password Policies Policy
    Privileges Queries Query Read Replication Resample Retention Revoke Select Series Set Shard Shards Show Slimit
    Soffset Stats Subscription Subscriptions Tag To True User Users Values Where With Write
}

/// The keyword or named operator for `word`.
pub(super) fn keyword(word: &str) -> Option<Kind> {
    match word {
        _ if word.eq_ignore_ascii_case("and") => Some(Kind::Op(Op::And)),
        _ if word.eq_ignore_ascii_case("or") => Some(Kind::Op(Op::Or)),
        _ => KEYS.iter().find(|(text, _)| text.eq_ignore_ascii_case(word)).map(|&(_, key)| Kind::Key(key)),
    }
}

/// Whether `text` has a word that only occurs in statements that change something: CREATE, ALTER, DROP, DELETE, INTO,
/// GRANT, REVOKE, SET, KILL. Looks into strings, names and comments as well, since their limits are uncertain in a text
/// that cannot be parsed. `true` for any text with a NUL.
pub fn may_change(text: &str) -> bool {
    const WORDS: [&str; 9] = ["create", "alter", "drop", "delete", "into", "grant", "revoke", "set", "kill"];
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| {
        // `.5drop` is a number and a word.
        let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
        WORDS.iter().any(|change| change.eq_ignore_ascii_case(word))
    }) || text.contains('\0')
}

pub(super) fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

/// The micro sign, part of a unit.
const MICRO: char = '\u{b5}';

pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The start of the next token.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next byte, whatever token it belongs to.
    pub fn peek(&self) -> Option<u8> {
        self.byte(0)
    }

    pub fn scan(&mut self) -> Token<'a> {
        let at = self.at;
        let Some(byte) = self.peek() else { return self.token(at, Kind::End) };
        match byte {
            _ if is_space(byte) => {
                self.skip_while(is_space);
                self.token(at, Kind::Space)
            }
            b'"' => self.name(at),
            _ if is_name_start(byte) => self.name(at),
            b'\'' => match self.quoted() {
                Some(text) => Token { kind: Kind::String, text, at },
                None => self.token(at, Kind::Illegal),
            },
            b'0'..=b'9' => self.number(at),
            b'.' if self.byte(1).is_some_and(|next| next.is_ascii_digit()) => self.number(at),
            b'$' => {
                self.at += 1;
                let name = self.name(at);
                let kind = if name.kind == Kind::Illegal { Kind::Illegal } else { Kind::Param };
                // A keyword is a valid parameter name.
                let text = if matches!(name.kind, Kind::Key(_) | Kind::Op(_)) {
                    Cow::Borrowed(&self.text[at + 1..self.at])
                } else {
                    name.text
                };
                Token { kind, text, at }
            }
            _ => {
                let kind = self.symbol(byte);
                self.token(at, kind)
            }
        }
    }

    /// To be called where a regular expression is allowed and [`peek`](Self::peek) is `/`. In the token's text `\/` has
    /// become `/`; other escapes are unchanged.
    pub fn scan_regex(&mut self) -> Token<'a> {
        let at = self.at;
        let mut body = String::new();
        if self.peek() == Some(b'/') {
            self.at += 1;
            let mut copied = self.at;
            while let Some(byte) = self.peek() {
                match byte {
                    b'/' => {
                        body.push_str(&self.text[copied..self.at]);
                        self.at += 1;
                        return Token { kind: Kind::Regex, text: Cow::Owned(body), at };
                    }
                    b'\\' if self.byte(1) == Some(b'/') => {
                        body.push_str(&self.text[copied..self.at]);
                        copied = self.at + 1;
                        self.at += 2;
                    }
                    b'\n' | b'\r' => break,
                    _ => self.at += 1,
                }
            }
        }
        self.token(at, Kind::RegexOpen)
    }

    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + ahead).copied()
    }

    fn token(&self, at: usize, kind: Kind) -> Token<'a> {
        Token { kind, text: Cow::Borrowed(""), at }
    }

    fn skip_while(&mut self, wanted: fn(u8) -> bool) {
        while self.peek().is_some_and(wanted) {
            self.at += 1;
        }
    }

    /// A bare name, a keyword, or a quoted name. If a quoted part directly follows a bare one (`cpu"mem"`), InfluxDB
    /// ignores the bare part.
    fn name(&mut self, at: usize) -> Token<'a> {
        let start = self.at;
        self.skip_while(is_name_byte);
        if self.peek() == Some(b'"') {
            return match self.quoted() {
                Some(text) => Token { kind: Kind::Name, text, at },
                None => self.token(at, Kind::Illegal),
            };
        }
        let word = &self.text[start..self.at];
        match keyword(word) {
            Some(kind) => self.token(at, kind),
            None => Token { kind: Kind::Name, text: Cow::Borrowed(word), at },
        }
    }

    /// The text from the quote here to the next one of its kind. None: a line break, the end of the text or an unknown
    /// escape comes first.
    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        let quote = self.peek()?;
        self.at += 1;
        let mut copied = self.at;
        let mut text = String::new();
        loop {
            match self.peek()? {
                b'\n' | b'\r' => return None,
                b'\\' => {
                    text.push_str(&self.text[copied..self.at]);
                    text.push(match self.byte(1)? {
                        b'n' => '\n',
                        escaped @ (b'\\' | b'"' | b'\'') => char::from(escaped),
                        _ => return None,
                    });
                    self.at += 2;
                    copied = self.at;
                }
                byte if byte == quote => {
                    let rest = &self.text[copied..self.at];
                    self.at += 1;
                    if text.is_empty() {
                        return Some(Cow::Borrowed(rest));
                    }
                    text.push_str(rest);
                    return Some(Cow::Owned(text));
                }
                _ => self.at += 1,
            }
        }
    }

    /// `1`, `1.5`, `.5`, `1.`, or a duration (digits with letters).
    fn number(&mut self, at: usize) -> Token<'a> {
        self.skip_while(|byte| byte.is_ascii_digit());
        let kind = if self.peek() == Some(b'.') {
            self.at += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
            Kind::Number
        } else if self.skip_letter() {
            loop {
                self.skip_while(|byte| byte.is_ascii_digit());
                if !self.skip_letter() {
                    break;
                }
            }
            Kind::Duration
        } else {
            Kind::Integer
        };
        Token { kind, text: Cow::Borrowed(&self.text[at..self.at]), at }
    }

    /// Skips a letter that may be part of a unit.
    fn skip_letter(&mut self) -> bool {
        let width = match self.peek() {
            Some(byte) if byte.is_ascii_alphabetic() => 1,
            _ if self.text[self.at..].starts_with(MICRO) => MICRO.len_utf8(),
            _ => 0,
        };
        self.at += width;
        width > 0
    }

    fn symbol(&mut self, byte: u8) -> Kind {
        let next = self.byte(1);
        let (kind, width) = match (byte, next) {
            (b'+', _) => (Kind::Op(Op::Add), 1),
            (b'-', Some(b'-')) => {
                self.skip_while(|byte| !matches!(byte, b'\n' | b'\r'));
                let end = if (self.byte(0), self.byte(1)) == (Some(b'\r'), Some(b'\n')) { 2 } else { 1 };
                (Kind::Comment, end.min(self.text.len() - self.at))
            }
            (b'-', _) => (Kind::Op(Op::Sub), 1),
            (b'*', _) => (Kind::Op(Op::Mul), 1),
            (b'/', Some(b'*')) => match self.text[self.at + 2..].find("*/") {
                Some(end) => (Kind::Comment, 2 + end + 2),
                None => (Kind::Illegal, self.text.len() - self.at),
            },
            (b'/', _) => (Kind::Op(Op::Div), 1),
            (b'%', _) => (Kind::Op(Op::Mod), 1),
            (b'&', _) => (Kind::Op(Op::BitAnd), 1),
            (b'|', _) => (Kind::Op(Op::BitOr), 1),
            (b'^', _) => (Kind::Op(Op::BitXor), 1),
            (b'=', Some(b'~')) => (Kind::Op(Op::EqRegex), 2),
            (b'=', _) => (Kind::Op(Op::Eq), 1),
            (b'!', Some(b'=')) => (Kind::Op(Op::NotEq), 2),
            (b'!', Some(b'~')) => (Kind::Op(Op::NotEqRegex), 2),
            (b'>', Some(b'=')) => (Kind::Op(Op::GtEq), 2),
            (b'>', _) => (Kind::Op(Op::Gt), 1),
            (b'<', Some(b'=')) => (Kind::Op(Op::LtEq), 2),
            (b'<', Some(b'>')) => (Kind::Op(Op::NotEq), 2),
            (b'<', _) => (Kind::Op(Op::Lt), 1),
            (b'(', _) => (Kind::Open, 1),
            (b')', _) => (Kind::Close, 1),
            (b',', _) => (Kind::Comma, 1),
            (b';', _) => (Kind::Semicolon, 1),
            (b'.', _) => (Kind::Dot, 1),
            (b':', Some(b':')) => (Kind::DoubleColon, 2),
            (b':', _) => (Kind::Colon, 1),
            _ => (Kind::Illegal, self.text[self.at..].chars().next().map_or(0, char::len_utf8)),
        };
        self.at += width;
        kind
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens up to the end or the first illegal one; what follows does not matter.
    fn tokens(text: &str) -> Vec<(Kind, String)> {
        let mut lexer = Lexer::new(text);
        let mut tokens = Vec::new();
        loop {
            let token = lexer.scan();
            match token.kind {
                Kind::End => return tokens,
                Kind::Space => {}
                Kind::Illegal => {
                    tokens.push((Kind::Illegal, String::new()));
                    return tokens;
                }
                kind => tokens.push((kind, token.text.into_owned())),
            }
        }
    }

    #[test]
    fn tokens_are_influxdbs() {
        use Kind::*;
        let cases: &[(&str, &[(Kind, &str)])] = &[
            ("cpu _1 x9", &[(Name, "cpu"), (Name, "_1"), (Name, "x9")]),
            ("SeLeCt", &[(Key(super::Word::Select), "")]),
            ("and", &[(Kind::Op(super::Op::And), "")]),
            ("\"a b\"", &[(Name, "a b")]),
            ("\"a\\\"\\\\\\n\\'\"", &[(Name, "a\"\\\n'")]),
            ("cpu\"mem\"", &[(Name, "mem")]),
            ("select\"mem\"", &[(Name, "mem")]),
            ("\"a\"\"b\"", &[(Name, "a"), (Name, "b")]),
            ("\"a\"b", &[(Name, "a"), (Name, "b")]),
            ("'a\"b'", &[(String, "a\"b")]),
            ("'it''s'", &[(String, "it"), (String, "s")]),
            ("'a\\tb'", &[(Illegal, "")]),
            ("'a\nb", &[(Illegal, "")]),
            (
                "1 1.5 .5 1. 1h2 1.5h",
                &[
                    (Integer, "1"),
                    (Number, "1.5"),
                    (Number, ".5"),
                    (Number, "1."),
                    (Duration, "1h2"),
                    (Number, "1.5"),
                    (Name, "h"),
                ],
            ),
            ("10\u{b5}s 1_0", &[(Duration, "10\u{b5}s"), (Integer, "1"), (Name, "_0")]),
            ("a.b..c", &[(Name, "a"), (Dot, ""), (Name, "b"), (Dot, ""), (Dot, ""), (Name, "c")]),
            ("a::b:c", &[(Name, "a"), (DoubleColon, ""), (Name, "b"), (Colon, ""), (Name, "c")]),
            ("$p $\"a b\" $select $1 $", &[(Param, "p"), (Param, "a b"), (Param, "select"), (Param, "1"), (Param, "")]),
            ("--x\na--y\r\n--", &[(Comment, ""), (Name, "a"), (Comment, ""), (Comment, "")]),
            ("/**//* * **/a/", &[(Comment, ""), (Comment, ""), (Name, "a"), (Kind::Op(super::Op::Div), "")]),
            ("/* a", &[(Illegal, "")]),
            (
                "<>=~!~!",
                &[
                    (Kind::Op(super::Op::NotEq), ""),
                    (Kind::Op(super::Op::EqRegex), ""),
                    (Kind::Op(super::Op::NotEqRegex), ""),
                    (Illegal, ""),
                ],
            ),
            ("é", &[(Illegal, "")]),
            ("a\u{b}b", &[(Name, "a"), (Illegal, "")]),
            ("\u{a0}", &[(Illegal, "")]),
            ("\u{feff}", &[(Illegal, "")]),
        ];
        for (text, want) in cases {
            let want: Vec<_> = want.iter().map(|&(kind, text)| (kind, text.to_owned())).collect();
            assert_eq!(tokens(text), want, "{text}");
        }
    }

    #[test]
    fn a_regex_ends_at_the_first_bare_slash() {
        for (text, want) in [
            ("/a/ b", Some("a")),
            ("//", Some("")),
            (r"/a\/b/", Some("a/b")),
            (r"/a\\/b/", Some(r"a\/b")),
            (r"/a\.b/", Some(r"a\.b")),
            ("/* c */", Some("* c *")),
            ("/a", None),
            ("/a\nb/", None),
            (r"/a\", None),
        ] {
            let token = Lexer::new(text).scan_regex();
            assert_eq!((token.kind == Kind::Regex).then(|| token.text.into_owned()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn changing_words_are_found_wherever_they_are() {
        for text in [
            "DROP x",
            "drop\"x\"",
            "x;kill",
            "select a into/**/b",
            "1.5delete",
            "--\rset",
            "'grant'",
            "$revoke",
            "dr\0op",
        ] {
            assert!(may_change(text), "{text}");
        }
        for text in ["", "select dropped, into_ from sets", "show series", "altering", "été"] {
            assert!(!may_change(text), "{text}");
        }
    }
}
