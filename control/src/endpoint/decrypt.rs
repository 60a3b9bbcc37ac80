//! `GET /decrypt`: the inverse of `/encrypt`. It requires the published key. A text that is not a cipher text gets a
//! 200 with the reason, as in influx-proxy.

use super::{Action, AdminCall, AdminState, response, text};
use crate::cipher;

pub fn decide(_: &AdminState, call: &AdminCall<'_>) -> Action {
    if *call.query.value("key") != *cipher::KEY.as_bytes() {
        return call.refuse(400, "invalid key");
    }
    Action::Answer(match cipher::decrypt(call.query.any(&["msg", "text"])) {
        Ok(mut plain) => {
            plain.push(b'\n');
            response(200, content_type(&plain), plain)
        }
        Err(error) => text(200, &error.to_string()),
    })
}

/// Plain text, unless the body holds a byte that Go's `net/http` (WHATWG MIME Sniffing, "binary data byte") takes as
/// binary. Never HTML, whatever the text looks like.
fn content_type(body: &[u8]) -> &'static str {
    let binary = |b: &u8| matches!(b, 0..=0x08 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F);
    if body.iter().any(binary) { "application/octet-stream" } else { "text/plain; charset=utf-8" }
}
