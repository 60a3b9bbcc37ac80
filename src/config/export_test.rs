//! A file that was imported means what the file it was made from means.

use std::path::{Path, PathBuf};

use super::config_test::{EVERY_KEY, json, ok};
use super::{Config, import, parse};

const FILES: [(&str, &str); 4] = [
    ("proxy.json", include_str!("../../tests/golden/proxy.json")),
    ("proxy-2.5.json", include_str!("../../tests/golden/proxy-2.5.json")),
    ("proxy-2.5.toml", include_str!("../../tests/golden/proxy-2.5.toml")),
    ("proxy-2.5.yaml", include_str!("../../tests/golden/proxy-2.5.yaml")),
];

fn imported(name: &str, text: &str) -> String {
    import(Path::new(name), text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What it means, without what has no effect and why it is so.
fn meaning(config: Config) -> String {
    let idle = (std::time::Duration::ZERO, 0, 0);
    let (flush_time, rewrite_threads, conn_pool_size) = idle;
    let (file, warnings, influx_proxy_why) = (PathBuf::new(), Vec::new(), String::new());
    format!("{:?}", Config { file, warnings, influx_proxy_why, flush_time, rewrite_threads, conn_pool_size, ..config })
}

#[test]
fn an_imported_file_means_the_same() {
    let odd = json(
        r#""username": "a\"b\\c", "password": "line\nfeed \u007f é", "data_dir": "d d", "tls": {"ciphers": ["x"]},
        "auth_encrypt": false, "db_list": ["a,b", "ü"], "vnode_size": 100"#,
    );
    let encrypted = json(r#""auth_secure": true, "username": "YgvEyuPZlDYAH8sGDkC!Ag", "vnode_size": 100"#);
    let neutral = json(r#""workers": 2"#);
    let more = [("odd.json", &odd[..]), ("encrypted.json", &encrypted), ("neutral.json", &neutral)];
    for (name, text) in FILES.into_iter().chain(EVERY_KEY).chain(more) {
        let new = imported(name, text);
        assert_eq!(meaning(ok("new.toml", &new)), meaning(ok(name, text)), "{name}:\n{new}");
        assert!(new.lines().all(|line| line.len() <= 120 || !line.starts_with('#')), "{new}");
        // Once more: nothing is left to be changed.
        assert_eq!(meaning(ok("again.toml", &imported("new.toml", &new))), meaning(ok(name, text)), "{name}");
    }
}

#[test]
fn notes_tell_what_is_taken_otherwise() {
    let text = json(
        r#""tlog_dir": "t", "vnode_size": 100, "flush_size": "7", "flush_time": 3,
        "circles": [{"name": "c", "backends": [{"name": "b", "url": "https://h", "password": "geheim"}]}]"#,
    );
    let text = text.split_once(",\n").map_or("", |(_, keys)| keys);
    let new = imported("f.json", &format!("{{{text}"));
    for words in [
        "made from f.json of influx-proxy",
        "NOTE: flush_size is text",
        "so does fluxgate: vnode_size",
        "NOTE: left out, since they have no effect here: flush_time",
        "# Points in one batch to a backend.\nflush_size = 7\n",
        "influx_proxy = \"2.5\"",
        "url = \"https://h\"\n# Its certificate is verified here. One of your own authority needs ca_file, one that \
         signs itself:\n\
         # insecure_skip_verify = true\n",
        "password = \"geheim\"",
    ] {
        assert!(new.contains(words) || new.replace("\n# ", " ").contains(words), "{words}\n{new}");
    }
    assert!(!new.contains("vnode_size =") && !new.contains("flush_time ="), "{new}");
    assert!(imported("f.json", FILES[0].1).contains("\nignore_rp = true\n"));
}

#[test]
fn a_file_that_means_nothing_is_refused_as_at_a_start() {
    for text in ["{", "[]", &json(r#""flush_sise": 1"#), &json(r#""flush_size": []"#)] {
        let path = Path::new("f.json");
        let want = parse(path, text).expect_err("a mistake").to_string();
        assert_eq!(import(path, text).expect_err("a mistake").to_string(), want);
    }
}
