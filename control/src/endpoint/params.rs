//! The parameters of an admin request, by name. Not here: how a query string is parsed (`dataplane::http::query`).

use std::borrow::Cow;

use fluxgate_dataplane::http::query;

/// The raw query string of a request.
#[derive(Clone, Copy, Debug)]
pub struct UrlParams<'a>(pub &'a [u8]);

impl<'a> UrlParams<'a> {
    /// The value of `name`; empty when missing.
    pub fn value(self, name: &str) -> Cow<'a, [u8]> {
        query::first(self.0, name).unwrap_or_default()
    }

    /// The first value of `names` that is not empty.
    pub fn any(self, names: &[&str]) -> Cow<'a, [u8]> {
        names.iter().map(|name| self.value(name)).find(|value| !value.is_empty()).unwrap_or_default()
    }

    pub fn pretty(self) -> bool {
        self.value("pretty") == &b"true"[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_name_does_not_hide_its_alias() {
        let params = UrlParams(b"meas=&mm=cpu&x=1");
        assert_eq!(params.any(&["meas", "mm"]), &b"cpu"[..]);
        assert_eq!(params.any(&["x", "mm"]), &b"1"[..]);
        assert_eq!(params.any(&["y"]), &b""[..]);
    }
}
