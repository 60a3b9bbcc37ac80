//! HTTP/1.x as pure functions over bytes: no sockets, no clock, no runtime.
//!
//! The caller owns every buffer. Parsers return [`Span`]s into it, so that nothing borrows while the buffer is
//! refilled. In the order a request passes them: [`head`], [`query`], [`auth`], [`chunked`], [`gzip`], [`response`].
//! [`answer`] reads a backend's answer; [`go_json`] and [`go_quote`] write text as Go does. Not here: what a path does,
//! deadlines, how much of a body is kept.

pub(crate) mod answer;
pub mod auth;
pub(crate) mod chunked;
pub mod error_body;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod go_json;
pub(crate) mod go_quote;
pub(crate) mod gzip;
pub mod head;
pub(crate) mod multipart;
#[cfg(test)]
mod naive_inflate;
pub mod query;
pub mod request_id;
pub mod response;
pub mod version;

/// A complete result, or not enough bytes yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<T> {
    Complete(T),
    /// The bytes so far are valid; parse again from the start when more have arrived.
    Partial,
}

/// A range in the head of a message; offsets in a head fit 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The range of `part`, which must lie within `buf`.
    fn within(buf: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr() as usize - buf.as_ptr() as usize;
        debug_assert!(start + part.len() <= buf.len());
        Self { start: start as u32, end: (start + part.len()) as u32 }
    }

    /// The bytes of this range. `buf` must begin with the head that was parsed.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start as usize..self.end as usize]
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// The value of a Content-Length field: one or more digits and nothing else (RFC 9110 section 8.6). With signs, blanks,
/// lists or numbers beyond 64 bits, two servers may find different ends of a message: None.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |n, &b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

/// The options of a Connection field: (has `close`, has `keep-alive`).
fn connection_options(value: &[u8]) -> (bool, bool) {
    let (mut close, mut keep_alive) = (false, false);
    for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        close |= option.eq_ignore_ascii_case(b"close");
        keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    (close, keep_alive)
}

/// Appends a number without the cost of `format!`.
pub(crate) fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
