//! `leaving`, as a configuration file says it.

use super::tests::{ok, refusal};

#[test]
fn a_leaving_backend_is_known_and_one_must_stay() {
    let text = |leaving| {
        format!(
            r#"{{"circles": [{{"name": "c", "backends": [{{"name": "a", "url": "http://h:1", "leaving": true}},
            {{"name": "b", "url": "http://h:2", "leaving": {leaving}}}]}}]}}"#
        )
    };
    let topology = ok("p.json", &text(false)).data.topology;
    assert_eq!(topology.backends.iter().map(|backend| backend.leaving).collect::<Vec<_>>(), [true, false]);
    assert_eq!(
        refusal("p.json", &text(true)),
        "p.json:1: every backend of circles[0] is leaving; a circle needs at least one that stays"
    );
}
