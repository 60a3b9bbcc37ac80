//! All reasons to refuse a request, whose fault each is, and the status and text that a client gets for it.

use std::borrow::Cow;

use crate::disklog;
use crate::http::go_quote::go_quote;
use crate::limits::BODY_WHOLE_BYTES_MAX;
use crate::request::body::BodyError;
use crate::request::refusals::Refusals;

/// Why a request gets no 2xx answer.
#[derive(Debug)]
pub enum Reject {
    // The client's fault.
    Method,
    Unauthorized,
    /// No `db` parameter; influx-proxy's text.
    NoDatabase,
    /// The same for Prometheus; InfluxDB's text.
    DatabaseRequired,
    /// Not in `db_list`; influx-proxy's text.
    DatabaseForbidden(Vec<u8>),
    DatabaseUnknown(Vec<u8>),
    NameTooLong(&'static str),
    /// A bucket that is no `database` or `database/retention-policy`.
    Bucket(Vec<u8>),
    /// A parameter with a value that this API does not take.
    Parameter {
        name: &'static str,
        given: Vec<u8>,
        known: &'static str,
    },
    Consistency,
    PolicyUnknown(Vec<u8>),
    Body(BodyError),
    /// A Prometheus request that InfluxDB cannot read or does not take; InfluxDB's text.
    Prometheus(String),
    /// All lines were bad.
    AllRefused(Box<Refusals>),
    /// The good lines are in the log, the bad ones are not.
    SomeRefused(Box<Refusals>),
    /// Some lines were bad, and the client takes all or none.
    NoneTaken(Box<Refusals>),
    /// So large a body cannot be looked at as a whole before its lines are taken.
    TooLargeAsAWhole,
    /// Backends have refused some lines, with this text, and stored the rest.
    RefusedByBackend(String),

    // Nobody's fault or the operator's: the client should try again.
    /// The backlog has reached its limit.
    LogFull,
    /// The points of influx-proxy's cache files are not all in the log yet.
    Importing,
    /// The next file of the log cannot be made now, for another cause than space.
    LogObstructed,
    /// The log has failed or is closing: points cannot be kept safe.
    LogFailed,
    /// The log's directory has been removed, renamed or replaced.
    LogGone,
    /// No memory for another large body became free within `idle_timeout`.
    Busy,
    /// The points are safe and will be delivered, but too few circles have confirmed them in time.
    Unconfirmed {
        confirmed: usize,
        wanted: usize,
    },
    /// `drop_oldest`: points were dropped before enough circles had them.
    Dropped {
        confirmed: usize,
        wanted: usize,
    },
    /// The control thread has ended or is overloaded.
    NoControl,
}

impl From<disklog::Error> for Reject {
    fn from(error: disklog::Error) -> Self {
        Self::from(&error)
    }
}

impl From<&disklog::Error> for Reject {
    fn from(error: &disklog::Error) -> Self {
        match error {
            disklog::Error::Full => Self::LogFull,
            disklog::Error::NoNextFile => Self::LogObstructed,
            disklog::Error::Gone { .. } => Self::LogGone,
            _ => Self::LogFailed,
        }
    }
}

impl From<BodyError> for Reject {
    fn from(error: BodyError) -> Self {
        Self::Body(error)
    }
}

impl Reject {
    pub fn status(&self) -> u16 {
        match self {
            Self::Method => 405,
            Self::Unauthorized => 401,
            Self::NoDatabase
            | Self::DatabaseRequired
            | Self::DatabaseForbidden(_)
            | Self::NameTooLong(_)
            | Self::Parameter { .. }
            | Self::Consistency
            | Self::Prometheus(_)
            | Self::AllRefused(_)
            | Self::SomeRefused(_)
            | Self::NoneTaken(_)
            | Self::RefusedByBackend(_) => 400,
            Self::DatabaseUnknown(_) | Self::Bucket(_) => 404,
            // As in InfluxDB 1.x.
            Self::PolicyUnknown(_) => 500,
            Self::Body(BodyError::TooLarge) | Self::TooLargeAsAWhole => 413,
            Self::Body(BodyError::Gzip(error)) => error.status(),
            Self::Body(BodyError::Chunk(_) | BodyError::Gone) => 400,
            Self::Body(BodyError::TimedOut) => 408,
            Self::LogFull
            | Self::Importing
            | Self::LogObstructed
            | Self::LogFailed
            | Self::LogGone
            | Self::Busy
            | Self::Dropped { .. }
            | Self::NoControl => 503,
            Self::Unconfirmed { .. } => 504,
        }
    }

    /// The text of the error: InfluxDB's own where there is one.
    pub fn text(&self) -> Cow<'_, [u8]> {
        let quoted = |before: &str, name: &[u8]| {
            let mut text = String::from(before);
            go_quote(&mut text, name);
            Cow::Owned(text.into_bytes())
        };
        let joined = |before: &str, name: &[u8]| Cow::Owned([before.as_bytes(), name].concat());
        match self {
            Self::Method => Cow::Borrowed(b"method not allow"),
            Self::Unauthorized => Cow::Borrowed(crate::http::auth::FAILED.as_bytes()),
            Self::NoDatabase => Cow::Borrowed(b"database not found"),
            Self::DatabaseRequired => Cow::Borrowed(b"database is required"),
            Self::DatabaseForbidden(db) => joined("database forbidden: ", db),
            Self::DatabaseUnknown(db) => quoted("database not found: ", db),
            Self::NameTooLong(what) => Cow::Owned(
                format!("{what} name too long: at most {} bytes", crate::limits::NAME_BYTES_MAX).into_bytes(),
            ),
            Self::Bucket(name) => {
                let mut text = String::from("bucket not found: ");
                go_quote(&mut text, name);
                text.push_str(" (use database or database/retention-policy)");
                Cow::Owned(text.into_bytes())
            }
            Self::Parameter { name, given, known } => {
                let mut text = format!("invalid {name} ");
                go_quote(&mut text, given);
                text += &format!(" (use {known})");
                Cow::Owned(text.into_bytes())
            }
            Self::Consistency => Cow::Borrowed(b"invalid consistency level"),
            Self::PolicyUnknown(rp) => joined("retention policy not found: ", rp),
            Self::Body(BodyError::TooLarge) => Cow::Borrowed(b"Request Entity Too Large"),
            Self::Body(BodyError::Gzip(error)) => Cow::Owned(error.to_string().into_bytes()),
            Self::Body(BodyError::Chunk(error)) => Cow::Borrowed(error.text().as_bytes()),
            Self::Body(BodyError::Gone) => Cow::Borrowed(b"unexpected EOF"),
            Self::Body(BodyError::TimedOut) => Cow::Borrowed(b"request timed out: no data received"),
            Self::Prometheus(text) => Cow::Borrowed(text.as_bytes()),
            Self::AllRefused(refusals) | Self::NoneTaken(refusals) => Cow::Borrowed(&refusals.text),
            Self::TooLargeAsAWhole => Cow::Owned(
                format!("too large for accept_partial=false: at most {BODY_WHOLE_BYTES_MAX} bytes, inflated")
                    .into_bytes(),
            ),
            Self::SomeRefused(refusals) => {
                Cow::Owned([b"partial write: ", refusals.text.as_slice(), b" dropped=0"].concat())
            }
            Self::LogFull => Cow::Borrowed(b"backlog full: backends are behind; try again later"),
            Self::Importing => {
                Cow::Borrowed(b"importing influx-proxy's cache files, whose points come first; try again soon")
            }
            Self::LogObstructed => {
                Cow::Borrowed(b"the log cannot make its next file now, see the proxy's log; try again later")
            }
            Self::LogFailed => Cow::Borrowed(b"log failed: this proxy cannot keep points safe; see its log"),
            Self::LogGone => Cow::Borrowed(
                b"log lost: data_dir was removed, renamed or replaced while the proxy ran, so it cannot keep points \
                  safe; restart the proxy",
            ),
            Self::Busy => Cow::Borrowed(b"too many large requests at once; try again later"),
            Self::Unconfirmed { confirmed, wanted } => Cow::Owned(
                format!("timeout: {confirmed} of {wanted} circles confirmed; points are safe and will be delivered")
                    .into_bytes(),
            ),
            Self::Dropped { confirmed, wanted } => Cow::Owned(
                format!(
                    "backlog full: points of this write were dropped (drop_oldest) before all circles had them; \
                     {confirmed} of {wanted} circles confirmed; write them again later"
                )
                .into_bytes(),
            ),
            Self::RefusedByBackend(text) => Cow::Borrowed(text.as_bytes()),
            Self::NoControl => Cow::Borrowed(b"control thread does not answer; try again later"),
        }
    }

    /// influx-proxy's own refusals of a write, which it never prints indented.
    pub fn is_never_pretty(&self) -> bool {
        matches!(self, Self::Method | Self::Unauthorized | Self::NoDatabase | Self::DatabaseForbidden(_))
    }

    /// Seconds for `Retry-After`, where a retry can help.
    pub fn retry_after(&self) -> Option<&'static str> {
        match self {
            Self::LogFull | Self::Dropped { .. } => Some("10"),
            Self::Importing | Self::LogObstructed | Self::Busy | Self::NoControl => Some("1"),
            _ => None,
        }
    }

    /// The lines to list in the answer.
    pub fn refusals(&self) -> Option<&Refusals> {
        match self {
            Self::AllRefused(refusals) | Self::SomeRefused(refusals) | Self::NoneTaken(refusals) => Some(refusals),
            _ => None,
        }
    }

    /// The end of the body is unknown: nothing more can be read from the connection.
    pub fn breaks_connection(&self) -> bool {
        matches!(self, Self::Body(_) | Self::TooLargeAsAWhole | Self::Busy)
    }
}
