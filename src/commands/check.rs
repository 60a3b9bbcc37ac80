//! `fluxgate check`: prints what a configuration file means, defaults included, and starts nothing.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::Duration;

use fluxgate_control::Dialect;
use fluxgate_control::transition::Transitions;
use fluxgate_dataplane::one_line::one_line;
use fluxgate_dataplane::placement::Placement;
use fluxgate_dataplane::settings::Settings;
use fluxgate_dataplane::takeover::cache_files;
use fluxgate_dataplane::topology::Backend;

use crate::config::{BACKLOG_FULL, CONSISTENCY_MAX, Config, DURABILITY, HASH, MISSING_DB, SAID};
use crate::serve::older;
use crate::tls;

/// Prints circles and backends with the expected share of each circle's data, then every key with its value. Passwords
/// are `***`.
pub fn print(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{} is valid", config.file.display())?;
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    unproven(config, out)?;
    let unread = older::logs(&config.data.data_dir).err();
    match &unread {
        Some(why) => writeln!(out, "note: {why}; nothing is told of what is in it")?,
        None => left_behind(config, out)?,
    }
    circles(config, out)?;
    if unread.is_none() {
        transitions(config, out)?;
        cache_files(config, out)?;
        if let Err(question) = older::ask(&config.data.data_dir) {
            writeln!(out, "\na start is refused: {question}")?;
        }
    }
    settings(config, out)
}

/// influx-proxy verifies no certificate, so that self-made ones are common. Nothing is asked here, so whether these are
/// trusted shows at the start only.
fn unproven(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let is_verified = |backend: &&Backend| tls::is_https(&backend.url) && config.data.trust.verifies(backend.id);
    let verified = config.data.topology.backends.iter().filter(is_verified);
    let names: Vec<_> = verified.map(|backend| one_line(&backend.name)).collect();
    if names.is_empty() || !config.ca_file.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "note: the certificates of these backends will be verified, which influx-proxy never does: {}. One of your \
         own authority needs ca_file; one that signs itself, as `openssl req -x509` makes it, needs \
         insecure_skip_verify at the backend",
        names.join(", ")
    )
}

/// What this file and the data directory do not tell of the influx-proxy before this one.
fn left_behind(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let data_dir = &config.data.data_dir;
    let has_run = cache_files::newest(data_dir).is_some();
    let is_known = config.influx_proxy != "none";
    if has_run && !is_known && config.influx_proxy_why != SAID {
        writeln!(
            out,
            "note: influx-proxy has run in {}, and no key tells which one this file is for: set influx_proxy to \
             \"2.4\" or \"2.5\". 2.4 ignores the parameter rp of /write, and their answers differ",
            data_dir.display()
        )?;
    }
    // Where that file cannot be looked for, nothing is known.
    let is_new = matches!(Transitions::file_in(data_dir).try_exists(), Ok(false));
    if !has_run && is_known && is_new {
        writeln!(
            out,
            "note: neither influx-proxy nor fluxgate has run in {}: a start there imports nothing. If influx-proxy has \
             run elsewhere, start fluxgate in the same folder, or set data_dir",
            data_dir.display()
        )?;
    }
    Ok(())
}

fn circles(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let topology = &config.data.topology;
    let placement = Placement::new(topology, &config.data.placement);
    let width =
        |text: fn(&Backend) -> &str| topology.backends.iter().map(|b| text(b).chars().count()).max().unwrap_or(0);
    let (names, urls) = (width(|backend| &backend.name), width(|backend| &backend.url));
    writeln!(out, "\ncircles, with the expected share of their data on each backend")?;
    for (index, circle) in topology.circles.iter().enumerate() {
        writeln!(out, "  {}", circle.name)?;
        let shares: HashMap<_, _> = placement.share(index).into_iter().collect();
        for &id in &circle.backends {
            let backend = topology.backend(id);
            let share = shares.get(&id).copied().unwrap_or_default();
            let mut notes = String::new();
            if !backend.username.is_empty() || !backend.password.is_empty() {
                notes.push_str(&format!("  username {}, password {}", backend.username, hidden(&backend.password)));
            }
            if backend.write_only {
                notes.push_str("  write_only");
            }
            if !backend.takes_statements() {
                notes.push_str("  takes only writes (catalog)");
            }
            if !config.data.trust.verifies(id) {
                notes.push_str("  insecure_skip_verify");
            }
            if backend.leaving {
                notes.push_str("  leaving");
            }
            let percent = share * 100.0;
            writeln!(out, "    {:names$}  {:urls$}  {percent:6.2} %{notes}", backend.name, backend.url)?;
        }
    }
    Ok(())
}

/// Circles whose backends differ from those of the last start, if there was one in this data directory.
fn transitions(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let Settings { data_dir, topology, placement, .. } = &config.data;
    let changes = match Transitions::preview(&Transitions::file_in(data_dir), topology, placement) {
        Ok(changes) => changes.iter().map(ToString::to_string).collect(),
        Err(why) => vec![why],
    };
    if !changes.is_empty() {
        writeln!(out, "\nwith this configuration")?;
    }
    changes.iter().try_for_each(|change| writeln!(out, "  {change}"))
}

/// What influx-proxy has left in the data directory, and what a start does with it.
fn cache_files(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let files = cache_files::find(&config.data.data_dir);
    if !files.is_empty() {
        writeln!(out, "\ncache files of influx-proxy in {}", config.data.data_dir.display())?;
    }
    for file in files {
        let name = one_line(&file.backend);
        let fate = match (config.data.topology.by_name(&file.backend), file.writer()) {
            (None, _) => format!("will not be imported: {}", file.no_backend()),
            (_, Some(writer)) => format!("will not be imported: {writer}"),
            _ => format!("the start imports it for backend {name}"),
        };
        writeln!(out, "  {name}.dat: {fate}")?;
    }
    Ok(())
}

fn settings(config: &Config, out: &mut dyn Write) -> io::Result<()> {
    let data = &config.data;
    let placement = &data.placement;
    let hash_key = placement.hash_key.text();
    let db_list = if data.db_list.is_empty() { "all databases".to_owned() } else { data.db_list.join(", ") };
    let backlog = data.backlog_max_bytes.map_or_else(
        || format!("{} % of the file system", fluxgate_dataplane::limits::BACKLOG_DEFAULT_PERCENT),
        |bytes| bytes.to_string(),
    );
    let max_body = if data.max_body_bytes == 0 { "no limit".to_owned() } else { data.max_body_bytes.to_string() };
    let former = config.former_backends.iter().map(|backend| &backend.name[..]).collect::<Vec<_>>().join(", ");
    let udp =
        data.udp.iter().map(|udp| format!("{} for {}", udp.bind, one_line(&udp.db))).collect::<Vec<_>>().join(", ");
    let idle = |value: String| format!("{value}  (accepted, without effect)");
    let groups: [(&str, &[(&str, String)]); 2] = [
        (
            "keys of influx-proxy (mlog_dir is also tlog_dir; credentials are shown decrypted)",
            &[
                ("listen_addr", data.listen.to_string()),
                ("db_list", db_list),
                ("data_dir", data.data_dir.display().to_string()),
                ("mlog_dir", config.mlog_dir.display().to_string()),
                ("hash_key", hash_key.to_owned()),
                ("vnode_size", placement.vnode_size.to_string()),
                ("shard_key", placement.shard_key.clone()),
                ("flush_size", data.flush_size.to_string()),
                ("flush_time", idle(time(config.flush_time))),
                ("check_interval", time(data.check_interval)),
                ("rewrite_interval", time(data.rewrite_interval)),
                ("rewrite_threads", idle(config.rewrite_threads.to_string())),
                ("conn_pool_size", idle(config.conn_pool_size.to_string())),
                ("write_timeout", time(data.write_timeout)),
                ("idle_timeout", time(data.idle_timeout)),
                ("username", data.credentials.username.clone()),
                ("password", hidden(&data.credentials.password).to_owned()),
                ("ping_auth_enabled", data.ping_auth_enabled.to_string()),
                ("log_enabled", config.log_enabled.to_string()),
                ("write_tracing", data.write_tracing.to_string()),
                ("query_tracing", data.query_tracing.to_string()),
                ("pprof_enabled", config.pprof_enabled.to_string()),
                ("https_enabled", config.https.enabled.to_string()),
                ("https_cert", config.https.cert.clone()),
                ("https_key", config.https.key.clone()),
                ("tls.ciphers", config.https.ciphers.join(", ")),
                ("tls.min_version", config.https.min_version.clone()),
                ("tls.max_version", config.https.max_version.clone()),
            ],
        ),
        (
            "keys of fluxgate",
            &[
                ("influx_proxy", influx_proxy(config)),
                ("cipher_key", if config.own_cipher_key { "***" } else { "" }.to_owned()),
                ("ignore_rp", data.ignore_rp.to_string()),
                ("workers", data.workers.to_string()),
                ("durability", choice(&DURABILITY, data.durability)),
                ("commit_linger_us", data.commit_linger.as_micros().to_string()),
                ("hot_tail_bytes", data.hot_tail_bytes.to_string()),
                ("backlog_max_bytes", backlog),
                ("backlog_full", choice(&BACKLOG_FULL, data.backlog_full)),
                ("udp", udp),
                ("influxdb_version", data.influxdb_version.clone().unwrap_or_default()),
                ("consistency_max", choice(&CONSISTENCY_MAX, data.consistency_max)),
                ("backend_gzip", data.backend_gzip.to_string()),
                ("max_body_bytes", max_body),
                ("query_timeout", time(data.query.timeout)),
                ("max_concurrent_queries", or_none(data.query.concurrent_max)),
                ("query_memory_bytes", data.query.memory_bytes_max.to_string()),
                ("max_result_rows", or_none(data.query.rows_max)),
                ("read_your_writes", data.query.read_wait.is_some().to_string()),
                ("read_wait", data.query.read_wait.map_or_else(String::new, |wait| format!("{} ms", wait.as_millis()))),
                ("missing_db", choice(&MISSING_DB, data.missing_db)),
                ("hash", choice(&HASH, placement.hash)),
                ("ca_file", config.ca_file.clone()),
                ("former_backends", former),
                ("peers", config.peers.join(", ")),
            ],
        ),
    ];
    for (title, rows) in groups {
        writeln!(out, "\n{title}")?;
        for (key, value) in rows {
            writeln!(out, "{}", format!("  {key:22}  {value}").trim_end())?;
        }
    }
    Ok(())
}

fn influx_proxy(config: &Config) -> String {
    let Config { influx_proxy, influx_proxy_why, dialect, .. } = config;
    let form = match dialect {
        Dialect::Older => "2.4",
        Dialect::Newer => "2.5",
    };
    format!("{influx_proxy}, answers as {form}  ({influx_proxy_why})")
}

fn hidden(password: &str) -> &'static str {
    if password.is_empty() { "" } else { "***" }
}

fn or_none(number: usize) -> String {
    if number == 0 { "no limit".to_owned() } else { number.to_string() }
}

fn time(time: Duration) -> String {
    format!("{} s", time.as_secs())
}

fn choice<T: PartialEq>(choices: &[(&'static str, T)], value: T) -> String {
    choices.iter().find(|choice| choice.1 == value).map_or("?", |choice| choice.0).to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    fn printed(text: &str) -> String {
        printed_as("proxy.json", text)
    }

    fn printed_as(name: &str, text: &str) -> String {
        let mut out = Vec::new();
        print(&parse(Path::new(name), text).expect("a good file"), &mut out).expect("memory takes all");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn circles_backends_shares_and_keys_are_shown() {
        let shown = printed(include_str!("../../tests/golden/proxy.json"));
        for line in [
            "proxy.json is valid",
            "  circle-2",
            "    influxdb-2-1  http://127.0.0.1:8088",
            "  hash_key                idx",
            "  rewrite_interval        10 s",
            "  durability              disk",
            "  backlog_max_bytes       80 % of the file system",
            "  db_list                 all databases",
        ] {
            assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line} is not in\n{shown}");
        }
        let shares: Vec<f64> =
            shown.lines().filter_map(|line| line.strip_suffix(" %")?.rsplit(' ').next()?.parse().ok()).collect();
        assert_eq!(shares.len(), 4);
        assert!((shares[0] + shares[1] - 100.0).abs() < 0.02 && shares[0] > 30.0, "{shares:?}");
    }

    #[test]
    fn backends_whose_certificates_will_be_verified_are_named() {
        let file = |keys: &str| {
            printed(&format!(
                r#"{{"circles": [{{"name": "c", "backends": [{{"name": "one", "url": "https://h" {keys}}},
                {{"name": "two", "url": "https://h"}}, {{"name": "plain", "url": "http://h"}}]}}]}}"#
            ))
        };
        assert!(
            file("").contains("never does: one, two. One of your own authority needs ca_file; one that"),
            "{}",
            file("")
        );
        assert!(file(r#", "insecure_skip_verify": true"#).contains("never does: two. One of"));
    }

    #[test]
    fn cache_files_are_named_with_what_becomes_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let file = format!(
            r#"{{"circles": [{{"name": "c", "backends": [{{"name": "one", "url": "http://h"}}]}}], "data_dir": {:?}}}"#,
            dir.path()
        );
        assert!(!printed(&file).contains("cache files"));
        std::fs::write(dir.path().join("one.dat"), "x").unwrap();
        std::fs::write(dir.path().join("two.dat"), "x").unwrap();
        let shown = printed(&file);
        assert!(shown.contains("\n  one.dat: the start imports it for backend one\n"), "{shown}");
        let rename =
            "two.dat: will not be imported: no backend is named two. If it has another name now, rename two.dat";
        assert!(shown.contains(rename), "{shown}");
    }

    #[test]
    fn what_the_file_and_the_folder_do_not_tell_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let shown = |keys: &str| {
            let circles = r#""circles": [{"name": "c", "backends": [{"name": "one", "url": "http://h"}]}]"#;
            let shown = printed(&format!(r#"{{{circles}, "data_dir": {:?}{keys}}}"#, dir.path()));
            (shown.contains("note: neither influx-proxy nor"), shown.contains("note: influx-proxy has run in"))
        };
        let keys = ["", r#", "vnode_size": 256"#, r#", "influx_proxy": "none""#];
        assert_eq!(keys.map(shown), [(false, false), (true, false), (false, false)]);
        // As influx-proxy leaves it behind when all has been delivered.
        std::fs::write(dir.path().join("one.rec"), "").unwrap();
        assert_eq!(keys.map(shown), [(false, true), (false, false), (false, false)]);
        std::fs::remove_file(dir.path().join("one.rec")).unwrap();
        std::fs::write(dir.path().join("circles.json"), r#"{"version": 1, "circles": []}"#).unwrap();
        assert_eq!(keys.map(shown), [(false, false); 3]);
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let circles = r#""circles": [{"name": "c", "backends": [{"name": "one", "url": "http://h"}]}]"#;
        let shown = printed(&format!(r#"{{{circles}, "vnode_size": 256, "data_dir": {:?}}}"#, file.path()));
        assert!(shown.contains("cannot be read: Not a directory (os error 20); nothing is told"), "{shown}");
        assert!(!shown.contains("has run in") && !shown.contains("refused"), "{shown}");
    }

    #[test]
    fn the_version_is_shown_with_its_reason() {
        for (keys, line) in [
            (r#""vnode_size": 9"#, "2.4, answers as 2.4  (keys of 2.4: 1, of 2.5: 0)"),
            (r#""shard_key": "%mm""#, "2.5, answers as 2.5  (keys of 2.4: 0, of 2.5: 1)"),
            (r#""hash_key": "exi""#, "2.5, answers as 2.5  (2.4 does not take its hash_key)"),
            (r#""mlog_dir": "l", "vnode_size": 9, "tlog_dir": "l""#, "2.5, answers as 2.5  (only 2.5 has tlog_dir)"),
            (r#""workers": 2"#, "none, answers as 2.4  (no key is of one version only)"),
            (r#""vnode_size": 256, "shard_key": "%mm""#, "2.5, answers as 2.5  (its keys of 2.4 change nothing)"),
            (r#""vnode_size": 9, "shard_key": "%db,%mm""#, "2.4, answers as 2.4  (its keys of 2.5 change nothing)"),
            (r#""vnode_size": 9, "influx_proxy": "2.5""#, "2.5, answers as 2.5  (the file says so)"),
            (r#""shard_key": "%mm", "influx_proxy": "none""#, "none, answers as 2.4  (the file says so)"),
        ] {
            let circles = r#""circles": [{"name": "c", "backends": [{"name": "b", "url": "http://h"}]}]"#;
            let shown = printed(&format!("{{{circles}, {keys}}}"));
            assert!(shown.contains(&format!("\n  influx_proxy            {line}\n")), "{keys}\n{shown}");
        }
        let shown = printed_as("f.yaml", "circles: [{name: c, backends: [{name: b, url: 'http://h'}]}]");
        assert!(shown.contains("  influx_proxy            2.5, answers as 2.5  (2.4 reads only JSON)\n"), "{shown}");
    }

    #[test]
    fn passwords_are_stars() {
        let shown = printed(
            r#"{"circles": [{"name": "c", "backends": [{"name": "b", "url": "http://h", "username": "bu",
            "password": "bsecret"}]}], "username": "u", "password": "psecret"}"#,
        );
        assert!(
            shown.contains("username bu, password ***") && shown.contains("  password                ***"),
            "{shown}"
        );
        assert!(!shown.contains("secret"), "{shown}");
    }
}
