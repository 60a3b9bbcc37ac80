//! Which version a file is for, and which of its keys count.

use fluxgate_control::Dialect::{self, Newer, Older};
use fluxgate_dataplane::placement::PlacementSettings;

use super::Config;
use super::config_test::{json, ok};

/// Two files with all keys of their version, in the words of each format.
const OF_2_4: &str = include_str!("../../tests/golden/proxy.json");
const OF_2_5: [(&str, &str); 3] = [
    ("proxy-2.5.json", include_str!("../../tests/golden/proxy-2.5.json")),
    ("proxy-2.5.toml", include_str!("../../tests/golden/proxy-2.5.toml")),
    ("proxy-2.5.yaml", include_str!("../../tests/golden/proxy-2.5.yaml")),
];

fn ignored(config: &Config) -> Option<&str> {
    let warning = config.warnings.iter().find(|warning| warning.contains("so does fluxgate"))?;
    warning.split_once("so does fluxgate: ")?.1.split_once(';').map(|(keys, _)| keys)
}

#[test]
fn files_with_all_keys_of_one_version_are_taken_unchanged() {
    let config = ok("proxy.json", OF_2_4);
    assert_eq!((config.dialect, ignored(&config)), (Older, None));
    for (name, text) in OF_2_5 {
        let config = ok(name, text);
        assert_eq!((config.dialect, ignored(&config), config.pprof_enabled), (Newer, None, false), "{name}");
        assert_eq!(config.data.placement, PlacementSettings::default(), "{name}");
        assert_eq!(config.data.topology.backends.len(), 4, "{name}");
        assert!(config.warnings.iter().all(|w| w.starts_with("listen_addr")), "{name}: {:?}", config.warnings);
    }
}

#[test]
fn leftover_keys_are_ignored_and_named() {
    let with = |text: &str, keys: &str| text.replacen('{', &format!("{{{keys},"), 1);
    let older = |keys: &str| with(OF_2_4, keys);
    let newer = |keys: &str| with(OF_2_5[0].1, keys);
    let cipher = r#""username": "YgvEyuPZlDYAH8sGDkC!Ag""#;
    type Meaning = fn(&Config) -> String;
    let placement: Meaning = |c| format!("{} {}", c.data.placement.vnode_size, c.data.placement.shard_key);
    let user: Meaning = |c| c.data.credentials.username.clone();
    let log: Meaning = |c| c.mlog_dir.file_name().unwrap_or_default().display().to_string();
    for (text, meaning, want, names) in [
        (newer(r#""vnode_size": 100"#), placement, "256 %db,%mm", "vnode_size"),
        (older(r#""shard_key": "%mm""#), placement, "256 %db,%mm", "shard_key"),
        (older(r#""shard_key": "%mm""#).replace("\": 256", "\": 100"), placement, "100 %db,%mm", "shard_key"),
        (newer(r#""auth_secure": true"#), |c| format!("{}", c.data.credentials.required()), "false", "auth_secure"),
        (newer(r#""mlog_dir": "old""#), log, "log", "mlog_dir"),
        (newer(r#""mlog_dir": "old", "log_enabled": true"#), log, "log", "mlog_dir, log_enabled"),
        (older(r#""ping_auth_enabled": true"#), |c| c.data.ping_auth_enabled.to_string(), "false", "ping_auth_enabled"),
        (older(r#""tls": {"min_version": "tls1.3"}"#), |c| c.https.min_version.clone(), "", "tls"),
        (
            older(r#""conn_pool_size": 5"#).replacen(
                r#""name": "influxdb-1-1","#,
                r#""write_only": true, "name": "influxdb-1-1","#,
                1,
            ),
            |c| c.data.topology.backends[0].write_only.to_string(),
            "false",
            "conn_pool_size, circles[].backends[].write_only",
        ),
        // All that is left of a file whose names were changed for 2.5.
        (
            json(&format!(r#""tlog_dir": "t", "auth_secure": true, "vnode_size": 9, {cipher}"#)),
            user,
            "YgvEyuPZlDYAH8sGDkC!Ag",
            "vnode_size, auth_secure",
        ),
        (json(r#""vnode_size": 100, "hash_key": "b-%idx""#), placement, "256 %db,%mm", "vnode_size"),
        (json(r#""vnode_size": 100, "shard_key": "%db,%mm""#), placement, "100 %db,%mm", "shard_key"),
        (json(r#""vnode_size": 256, "shard_key": "%mm""#), placement, "256 %mm", "vnode_size"),
        // The file says it.
        (
            json(r#""vnode_size": 100, "shard_key": "%mm", "influx_proxy": "2.4""#),
            placement,
            "100 %db,%mm",
            "shard_key",
        ),
        (json(r#""vnode_size": 100, "shard_key": "%mm", "influx_proxy": 2.5"#), placement, "256 %mm", "vnode_size"),
        (json(r#""vnode_size": 100, "shard_key": "%mm", "influx_proxy": "none""#), placement, "100 %mm", ""),
    ] {
        let config = ok("f.json", &text);
        assert_eq!(meaning(&config), want, "{text}");
        assert_eq!(ignored(&config).unwrap_or_default(), names, "{text}");
    }
}

#[test]
fn a_guess_is_told_with_its_reason_and_how_to_correct_it() {
    let warning = |keys: &str| ok("f.json", &json(keys)).warnings.iter().find(|w| w.contains("shard_key")).cloned();
    let outvoted = warning(r#""mlog_dir": "log", "vnode_size": 256, "shard_key": "%mm""#).unwrap();
    let way = "remove them, or set influx_proxy to \"2.5\" if it was used with 2.5, or to \"none\" to have all";
    assert!(outvoted.contains("2.4 (keys of 2.4: 2, of 2.5: 1), which") && outvoted.contains(way), "{outvoted}");
    let said = warning(r#""influx_proxy": "2.4", "shard_key": "%mm""#).unwrap();
    assert!(said.contains("2.4 (the file says so)") && said.contains("set influx_proxy to \"none\""), "{said}");
}

#[test]
fn toml_and_yaml_are_of_2_5_which_alone_reads_them() {
    let yaml = "vnode_size: 100\ncircles:\n- name: c\n  backends:\n  - {name: b, url: 'http://h'}\n";
    let config = ok("f.yaml", yaml);
    assert_eq!((config.data.placement.vnode_size, ignored(&config)), (256, Some("vnode_size")));
    let toml =
        "vnode_size = 100\ninflux_proxy = 'none'\n[[circles]]\n[[circles.backends]]\nname = 'b'\nurl = 'http://h'\n";
    assert_eq!(ok("f.toml", toml).data.placement.vnode_size, 100);
}

#[test]
fn the_dialect_follows_the_version() {
    for (keys, dialect) in [
        (r#""vnode_size": 256"#, Older),
        (r#""workers": 2"#, Older),
        (r#""tlog_dir": "log""#, Newer),
        (r#""tlog_dir": "log", "influx_proxy": "2.4""#, Older),
        // Without effect, but of 2.5.
        (r#""rewrite_threads": 5"#, Newer),
    ] {
        let config = ok("f.json", &json(keys));
        let want: (Dialect, bool) = (dialect, dialect == Older);
        assert_eq!((config.dialect, config.pprof_enabled), want, "{keys}");
    }
}

#[test]
fn where_the_file_says_its_version_no_other_key_decides() {
    let keys = [
        r#""workers": 2"#,
        r#""vnode_size": 9"#,
        r#""log_enabled": true, "mlog_dir": "l""#,
        r#""tlog_dir": "log""#,
        r#""rewrite_threads": 5, "conn_pool_size": 20"#,
        r#""auth_encrypt": false, "write_tracing": true"#,
        r#""tls": {"min_version": "tls1.2"}"#,
        r#""hash_key": "exi""#,
    ];
    for (said, dialect) in [("2.4", Older), ("2.5", Newer), ("none", Older)] {
        for keys in keys {
            let config = ok("f.json", &json(&format!(r#"{keys}, "influx_proxy": "{said}""#)));
            assert_eq!((config.dialect, config.pprof_enabled), (dialect, dialect == Older), "{said}: {keys}");
        }
    }
    let toml = "influx_proxy = 'none'\n[[circles]]\n[[circles.backends]]\nname = 'b'\nurl = 'http://h'\n";
    assert_eq!(ok("f.toml", toml).dialect, Older);
}
