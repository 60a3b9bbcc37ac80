//! How influx-proxy looks up a measurement that it writes: without the backslashes of its line, also those that belong
//! to the name. Its migrations look the same measurement up by its name, as fluxgate always does. So a name with a
//! backslash may lie at two backends of a circle.

use std::borrow::Cow;

/// The name (unescaped, as InfluxDB stores it) that influx-proxy looks up on a write: each backslash is left out, and
/// the byte behind it is taken as it is.
pub(super) fn as_written(name: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', name).is_none() {
        return Cow::Borrowed(name);
    }
    let mut written = Vec::with_capacity(name.len());
    let mut bytes = name.iter().copied();
    while let Some(byte) = bytes.next() {
        written.extend(if byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    Cow::Owned(written)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lineproto::unescape_measurement;
    use crate::placement::placement_test::{settings, topology};
    use crate::placement::{Former, FormerMember, HashKey, Place, Placement};

    /// What stands on the line, the name in InfluxDB, and what influx-proxy looks up.
    const NAMES: [(&str, &str, &str); 9] = [
        ("cpu", "cpu", "cpu"),
        (r"my\ meas", "my meas", "my meas"),
        (r"a\,b\=c", "a,b=c", "a,b=c"),
        (r"C:\disk", r"C:\disk", "C:disk"),
        (r"C:\\disk", r"C:\\disk", r"C:\disk"),
        (r"\\host\share", r"\\host\share", r"\hostshare"),
        (r"a\b\ c\d", r"a\b c\d", "ab cd"),
        (r"监\控", r"监\控", "监控"),
        (r"\\\\", r"\\\\", r"\\"),
    ];

    #[test]
    fn influx_proxy_leaves_out_the_backslashes_of_a_line() {
        for (line, name, written) in NAMES {
            assert_eq!(unescape_measurement(line.as_bytes()), name.as_bytes());
            assert_eq!(as_written(name.as_bytes()), written.as_bytes(), "{line}");
        }
        assert!(matches!(as_written(b"cpu"), Cow::Borrowed(_)));
    }

    #[test]
    fn names_with_a_backslash_are_read_where_influx_proxy_wrote_them_and_written_to_both_places() {
        let (topology, settings) = (topology(&[5, 3]), settings(HashKey::Idx));
        let members = topology.circles[0].backends.iter().map(|&id| topology.backend(id));
        let member = |name: &str, url: &str| FormerMember { name: name.into(), url: url.into(), gone: false };
        let members = members.map(|backend| member(&backend.name, &backend.url)).collect();
        let former = Former { settings: settings.clone(), members, as_written: Some(BTreeMap::new()) };
        let plain = Placement::new(&topology, &settings);
        let placement = plain.clone().with_former(&topology, 0, &former);
        let mut at_two = 0;
        for n in 0..20 {
            for (_, name, written) in NAMES {
                let (name, written) = (format!("{name}{n}"), format!("{written}{n}"));
                let of = |measurement: &str, circle| plain.owner(circle, Place::new("db", measurement).bytes());
                let (was, owner) = (of(&written, 0), of(&name, 0));
                let place = Place::new("db", &name[..]);
                let mut route = Vec::new();
                placement.route(place.bytes(), &mut route);
                let both = [owner, of(&name, 1)].into_iter().chain((was != owner).then_some(was));
                assert_eq!(route, both.collect::<Vec<_>>(), "{name}");
                assert_eq!(placement.reader(0, place.bytes()), was, "{name}");
                assert_eq!(placement.reader(1, place.bytes()), of(&name, 1), "another circle");
                let moved = placement.with_moved(0, [place.bytes()]);
                assert_eq!(moved.reader(0, place.bytes()), owner, "{name}");
                let ended = moved.with_settled(0).with_ended(0);
                assert_eq!(ended.former(0, place.bytes()), None);
                at_two += u32::from(was != owner);
            }
        }
        assert!(at_two > 50, "{at_two}");
    }
}
