//! Checks the proxy's own user. The rules are those recorded from influx-proxy 2.5.12, which are less strict than
//! InfluxDB's: one correct pair is enough, in the parameters `u` and `p` or in the header, as `Basic` or as `Token
//! user:password` (which 2.4.7 does not take). Every failure is the same answer, 401 [`FAILED`], also for `Bearer` and
//! for an unreadable header.
//!
//! The time of a comparison does not depend on where the first difference is, only on the lengths. Not here: which
//! endpoints require the user (`/ping` does only if configured), users of the backends (`courier`).

use std::fmt;
use std::hint::black_box;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http::query;
use crate::settings::Credentials;

/// The text of the 401.
pub const FAILED: &str = "authentication failed";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthVerdict {
    /// The right user, or no user is required.
    Ok,
    /// Neither parameters nor header.
    Missing,
    /// Other credentials, or a header that cannot be read.
    Wrong,
}

/// The expected user, in the forms in which clients send it.
#[derive(Clone)]
pub struct Guard {
    required: bool,
    username: Box<[u8]>,
    password: Box<[u8]>,
    /// `user:password`, plain and in base64. The header's base64 is compared without decoding, since there is only one
    /// canonical form.
    token: Box<[u8]>,
    basic: Box<[u8]>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("required", &self.required).finish_non_exhaustive()
    }
}

impl Guard {
    pub fn new(credentials: &Credentials) -> Self {
        let token = format!("{}:{}", credentials.username, credentials.password);
        Self {
            required: credentials.required(),
            username: credentials.username.as_bytes().into(),
            password: credentials.password.as_bytes().into(),
            basic: STANDARD.encode(&token).into_bytes().into(),
            token: token.into_bytes().into(),
        }
    }

    /// Checks a request by its query string and its `Authorization` field.
    pub fn judge(&self, query: &[u8], authorization: Option<&[u8]>) -> AuthVerdict {
        if !self.required {
            return AuthVerdict::Ok;
        }
        let (user, password) = (query::first(query, "u"), query::first(query, "p"));
        let missing = user.is_none() && password.is_none() && authorization.is_none();
        let by_parameters = same(user.as_deref().unwrap_or_default(), &self.username)
            & same(password.as_deref().unwrap_or_default(), &self.password);
        if by_parameters || authorization.is_some_and(|value| self.by_header(value)) {
            AuthVerdict::Ok
        } else if missing {
            AuthVerdict::Missing
        } else {
            AuthVerdict::Wrong
        }
    }

    /// Scheme names as Go compares them: `Basic` in any case, `Token` only in this one.
    fn by_header(&self, value: &[u8]) -> bool {
        match value.split_at_checked(6) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"basic ") => same(rest, &self.basic),
            Some((b"Token ", rest)) => same(rest, &self.token),
            _ => false,
        }
    }
}

/// Equality in a time that depends on the lengths only.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    // All differences are combined and tested at the end, so that the compiler cannot leave the loop early.
    a.len() == b.len() && black_box(a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b))) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(username: &str, password: &str) -> Guard {
        Guard::new(&Credentials { username: username.into(), password: password.into() })
    }

    #[test]
    fn one_good_pair_is_enough() {
        use AuthVerdict::*;
        let guard = guard("admin", "s3cr&t");
        for (query, header, want) in [
            ("", None, Missing),
            ("pretty=true", None, Missing),
            ("u=admin&p=s3cr%26t", None, Ok),
            ("u=admin&p=s3cr&t", None, Wrong),
            ("u=admin&p=wrong", None, Wrong),
            ("u=wrong&p=s3cr%26t", None, Wrong),
            ("u=admin", None, Wrong),
            ("u=&p=", None, Wrong),
            ("", Some("Basic YWRtaW46czNjciZ0"), Ok),
            ("", Some("basic YWRtaW46czNjciZ0"), Ok),
            ("u=a&p=b", Some("Basic YWRtaW46czNjciZ0"), Ok),
            ("u=admin&p=s3cr%26t", Some("Basic YWRtaW46d3Jvbmc="), Ok),
            ("", Some("Basic YWRtaW46d3Jvbmc="), Wrong),
            ("", Some("Basic !!!"), Wrong),
            ("", Some("Basic YWRtaW4="), Wrong),
            ("", Some("Basic"), Wrong),
            ("", Some("Token admin:s3cr&t"), Ok),
            ("u=a&p=b", Some("Token admin:s3cr&t"), Ok),
            ("", Some("Token admin:wrong"), Wrong),
            ("", Some("Token"), Wrong),
            ("", Some("token admin:s3cr&t"), Wrong),
            ("", Some("Bearer admin:s3cr&t"), Wrong),
            ("", Some(""), Wrong),
        ] {
            let got = guard.judge(query.as_bytes(), header.map(str::as_bytes));
            assert_eq!(got, want, "{query} {header:?}");
        }
    }

    #[test]
    fn an_empty_password_is_a_password() {
        let guard = guard("admin", "");
        assert_eq!(guard.judge(b"u=admin", None), AuthVerdict::Ok);
        assert_eq!(guard.judge(b"u=admin&p=x", None), AuthVerdict::Wrong);
        assert_eq!(guard.judge(b"", None), AuthVerdict::Missing);
    }

    #[test]
    fn nobody_is_asked_when_no_user_is_configured() {
        let guard = guard("", "");
        assert_eq!(guard.judge(b"u=x&p=y", Some(b"Basic !!!")), AuthVerdict::Ok);
    }

    #[test]
    fn equality_is_equality() {
        for (a, b) in [("", ""), ("a", "a"), ("a", "b"), ("ab", "a"), ("abc", "abd"), ("xbc", "abc")] {
            assert_eq!(same(a.as_bytes(), b.as_bytes()), a == b, "{a} {b}");
        }
    }
}
