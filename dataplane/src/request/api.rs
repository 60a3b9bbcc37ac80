//! The APIs through which InfluxDB takes points, and how each words a refusal: its status and its body.
//!
//! Not here: the reasons and their texts (`reject`), the parameters of each API (`write`).

use crate::http::error_body::Format;
use crate::http::{go_json, push_decimal};
use crate::request::refusals::RefusedLine;
use crate::request::reject::Reject;

/// Whose words a client understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// `/write` of InfluxDB 1.x, and every other path.
    V1,
    /// `/api/v2/write` of InfluxDB 2, which influx-proxy 2.5 and InfluxDB 1.8 have as well.
    V2,
    /// `/api/v3/write_lp` of InfluxDB 3.
    V3,
    /// `/api/v1/prom/*` of InfluxDB 1.x: Prometheus' remote write and remote read.
    Prometheus,
}

impl Api {
    /// The API of a path; [`Api::V1`] for any that has none of its own.
    pub fn of(path: &[u8]) -> Self {
        match path {
            b"/api/v2/write" => Self::V2,
            b"/api/v3/write_lp" => Self::V3,
            b"/api/v1/prom/write" | b"/api/v1/prom/read" => Self::Prometheus,
            _ => Self::V1,
        }
    }

    /// The format of errors. Versions 2 and 3 do not let the client choose.
    pub fn format(self, asked: Format) -> Format {
        if matches!(self, Self::V2 | Self::V3) { Format::Json } else { asked }
    }

    pub fn status(self, reject: &Reject) -> u16 {
        match (self, reject) {
            // A bucket is a database and a policy: either may be what is not found.
            (Self::V2, Reject::PolicyUnknown(_)) => 404,
            (Self::V2, Reject::RefusedByBackend(_)) => 422,
            _ => reject.status(),
        }
    }

    /// The body of an error, in the words of this API. None: as any other error of InfluxDB 1.x.
    pub fn body(self, reject: &Reject) -> Option<Vec<u8>> {
        match self {
            Self::V1 | Self::Prometheus => None,
            Self::V2 => {
                let line = reject.refusals().and_then(|refusals| refusals.listed.first()).map(|line| line.number);
                Some(v2_body(v2_code(self.status(reject)), &reject.text(), line))
            }
            Self::V3 => Some(v3_body(reject)),
        }
    }
}

/// InfluxDB 2's name of an error.
fn v2_code(status: u16) -> &'static str {
    match status {
        401 => "unauthorized",
        404 => "not found",
        405 => "method not allowed",
        413 => "request too large",
        422 => "unprocessable entity",
        503 | 504 => "unavailable",
        500.. => "internal error",
        _ => "invalid",
    }
}

/// `line` is the number of the first bad line. `error` is for readers of influx-proxy 2.5 and InfluxDB 1.8, which
/// answer on the same path and have no other field.
fn v2_body(code: &str, text: &[u8], line: Option<u64>) -> Vec<u8> {
    let mut body = Vec::with_capacity(2 * text.len() + 64);
    body.extend_from_slice(b"{\"code\":");
    go_json::push_string(&mut body, code.as_bytes());
    body.extend_from_slice(b",\"message\":");
    go_json::push_string(&mut body, text);
    if let Some(line) = line {
        body.extend_from_slice(b",\"line\":");
        push_decimal(&mut body, line);
    }
    body.extend_from_slice(b",\"error\":");
    go_json::push_string(&mut body, text);
    body.extend_from_slice(b"}\n");
    body
}

/// Refused lines stand in `data`: all that are listed, or the first one when it refused all others.
fn v3_body(reject: &Reject) -> Vec<u8> {
    let put_line = |body: &mut Vec<u8>, line: &RefusedLine| {
        body.extend_from_slice(b"{\"original_line\":");
        go_json::push_string(body, &line.shown);
        body.extend_from_slice(b",\"line_number\":");
        push_decimal(body, line.number);
        body.extend_from_slice(b",\"error_message\":");
        go_json::push_string(body, line.reason.as_bytes());
        body.push(b'}');
    };
    let mut body = b"{\"error\":".to_vec();
    match (reject, reject.refusals()) {
        (Reject::NoneTaken(_), Some(refusals)) => {
            body.extend_from_slice(b"\"parsing failed for write_lp endpoint\"");
            for line in refusals.listed.iter().take(1) {
                body.extend_from_slice(b",\"data\":");
                put_line(&mut body, line);
            }
        }
        (_, Some(refusals)) => {
            body.extend_from_slice(b"\"partial write of line protocol occurred\",\"data\":[");
            for (n, line) in refusals.listed.iter().enumerate() {
                body.extend_from_slice(if n > 0 { b"," } else { b"" });
                put_line(&mut body, line);
            }
            body.push(b']');
        }
        (_, None) => go_json::push_string(&mut body, &reject.text()),
    }
    body.extend_from_slice(b"}\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::gzip::GzipError;
    use crate::request::body::BodyError;
    use crate::request::refusals::Refusals;

    #[test]
    fn version_2_has_a_code_for_every_refusal() {
        let refusals = || {
            let shown = b"a<b"[..].into();
            let listed = vec![RefusedLine { number: 3, reason: "missing fields".to_owned(), shown }];
            Box::new(Refusals { count: 1, text: b"unable to parse 'a<b': missing fields".to_vec(), listed })
        };
        for (reject, status, code) in [
            (Reject::Method, 405, "method not allowed"),
            (Reject::Unauthorized, 401, "unauthorized"),
            (Reject::Bucket(b"db/".to_vec()), 404, "not found"),
            (Reject::DatabaseForbidden(b"x".to_vec()), 400, "invalid"),
            (Reject::DatabaseUnknown(b"x".to_vec()), 404, "not found"),
            (Reject::PolicyUnknown(b"x".to_vec()), 404, "not found"),
            (Reject::Consistency, 400, "invalid"),
            (Reject::Body(BodyError::TooLarge), 413, "request too large"),
            (Reject::Body(BodyError::Gzip(GzipError::TooLarge)), 413, "request too large"),
            (Reject::Body(BodyError::TimedOut), 408, "invalid"),
            (Reject::AllRefused(refusals()), 400, "invalid"),
            (Reject::SomeRefused(refusals()), 400, "invalid"),
            (Reject::RefusedByBackend("partial write: x dropped=1".into()), 422, "unprocessable entity"),
            (Reject::LogFull, 503, "unavailable"),
            (Reject::LogFailed, 503, "unavailable"),
            (Reject::Busy, 503, "unavailable"),
            (Reject::NoControl, 503, "unavailable"),
            (Reject::Unconfirmed { confirmed: 0, wanted: 1 }, 504, "unavailable"),
            (Reject::Dropped { confirmed: 0, wanted: 1 }, 503, "unavailable"),
        ] {
            assert_eq!(Api::V2.status(&reject), status, "{reject:?}");
            let body = Api::V2.body(&reject).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let text = String::from_utf8_lossy(&reject.text()).into_owned();
            assert_eq!(
                (&body["code"], &body["message"], &body["error"]),
                (&code.into(), &text.clone().into(), &text.into())
            );
            assert_eq!(body["line"].as_u64(), reject.refusals().map(|_| 3), "{reject:?}");
            assert_eq!(Api::V1.body(&reject), None);
        }
        assert_eq!(v2_code(500), "internal error");
    }
}
