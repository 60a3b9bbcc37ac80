//! HTTP/1.x as pure functions over bytes: no socket, no clock, no runtime.
//!
//! The caller owns every buffer; what a parser finds are [`Span`]s into it, so nothing borrows while the buffer is
//! refilled. In the order a request meets them: [`head`], [`query`], [`auth`], [`chunked`], [`gzip`], [`response`].
//! [`answer`] reads what a backend says; [`go_json`] and [`go_quote`] write text the way Go does. Not here: which path
//! does what, deadlines, how much of a body is kept.

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

/// All of it, or not all here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<T> {
    Complete(T),
    /// The bytes so far are fine; parse again from the start when more have come.
    Partial,
}

/// A place in the head of a message; heads are bounded to what 16 bits can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// The place of `part`, which must lie within `buf`.
    fn within(buf: &[u8], part: &[u8]) -> Self {
        let start = part.as_ptr() as usize - buf.as_ptr() as usize;
        debug_assert!(start + part.len() <= buf.len());
        Self { start: start as u16, end: (start + part.len()) as u16 }
    }

    /// The bytes there. `buf` must begin with the same head that was parsed.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[usize::from(self.start)..usize::from(self.end)]
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// The value of a Content-Length field: digits only, at least one (RFC 9110 section 8.6). Signs, blanks, lists and what
/// does not fit 64 bits are how two servers come to disagree about where a message ends: None.
fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |n, &b| match b {
        b'0'..=b'9' => n.checked_mul(10)?.checked_add(u64::from(b - b'0')),
        _ => None,
    })
}

/// What a Connection field says: (has `close`, has `keep-alive`).
fn connection_options(value: &[u8]) -> (bool, bool) {
    let (mut close, mut keep_alive) = (false, false);
    for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
        close |= option.eq_ignore_ascii_case(b"close");
        keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    (close, keep_alive)
}

/// Appends a number without the weight of formatting.
fn push_decimal(out: &mut Vec<u8>, mut n: u64) {
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
