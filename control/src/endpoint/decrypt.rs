//! `GET /decrypt`: the inverse of `/encrypt`, for those who know the published key. A text that is no cipher text is a
//! 200 that says why, as in influx-proxy.

use super::params::UrlParams;
use super::{Action, AdminState, refuse, response, text};
use crate::cipher;

pub fn decide(_: &AdminState, params: UrlParams<'_>) -> Action {
    if *params.value("key") != *cipher::KEY.as_bytes() {
        return refuse(400, "invalid key");
    }
    Action::Answer(match cipher::decrypt(params.any(&["msg", "text"])) {
        Ok(mut plain) => {
            plain.push(b'\n');
            response(200, content_type(&plain), plain)
        }
        Err(error) => text(200, &error.to_string()),
    })
}

/// Text, unless it holds a byte that the sniffing of Go's `net/http` (WHATWG MIME Sniffing, "binary data byte") takes
/// for a sign of something else. Whatever the text looks like, it is not offered as HTML.
fn content_type(body: &[u8]) -> &'static str {
    let binary = |b: &u8| matches!(b, 0..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F);
    if body.iter().any(binary) { "application/octet-stream" } else { "text/plain; charset=utf-8" }
}
