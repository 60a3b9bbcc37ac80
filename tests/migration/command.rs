//! Promise: `fluxgate migrate` does from a shell what the endpoints do and shows the progress. Its exit status says how
//! the migration ended.

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use fluxgate::lab::port::Port;
use fluxgate::lab::proxy::{Proxy, ProxyConfig, eventually};
use fluxgate::lab::stand_in::StandIn;
use rustix::process::{Pid, Signal, kill_process};

use crate::cluster::{Cluster, DB, job, points, write_to};

/// `fluxgate migrate ...` against this proxy, with words that are separated by blanks.
fn migrate(url: &str, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fluxgate"));
    command.arg("migrate").args(words.split(' ')).args(["--url", url]).env_remove("FLUXGATE_PASSWORD");
    command
}

/// Runs it to its end: exit status, standard output, standard error.
fn run(url: &str, words: &str) -> (i32, String, String) {
    ended(migrate(url, words).output().unwrap())
}

fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn watching(proxy: &Proxy, words: &str) -> Child {
    migrate(&proxy.url(), words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_rebalance_is_run_to_its_end_with_lines_where_no_terminal_is() {
    let mut cluster = Cluster::start(&[2, 1]);
    cluster.fill(0..3000);
    cluster.restart_with_one_more();
    let (status, out, err) = run(&cluster.proxy.url(), "rebalance --circle 0 --cpus 2 --rate 20k");
    assert_eq!((status, &err[..]), (0, ""), "{out}");
    let lines: Vec<_> = out.lines().collect();
    let (end, progress) = lines.split_last().unwrap();
    assert!(end.starts_with("migration 1 (rebalance of circle 0) is done after "), "{out}");
    assert!(progress.len() >= 2 && progress.iter().all(|line| line.starts_with("migration 1: ")), "{out}");
    assert!(progress[progress.len() - 1].starts_with("migration 1: 100.0% done: "), "{out}");
    assert!(!out.contains('\x1b'), "{out:?}");
    cluster.check(false);
    let (status, out, _) = run(&cluster.proxy.url(), "clear --circle 0");
    assert!(status == 0 && out.contains("migration 2 (clear of circle 0) is done after "), "{out}");
    cluster.check(true);
}

#[test]
fn a_migration_that_fails_ends_with_one_and_every_error() {
    let cluster = Cluster::start(&[2]);
    cluster.fill(0..600);
    let [a, b] = &cluster.servers[0][..] else { panic!("two servers") };
    // The wrong server holds a point that the owner does not have.
    for name in ["m0", "m1"] {
        let wrong = if points(a, name).is_empty() { a } else { b };
        write_to(wrong, &format!("{name},host=h0 n=7i 42\n"));
    }
    let (status, _, err) = run(&cluster.proxy.url(), "clear --circle 0");
    assert_eq!(status, 1, "{err}");
    assert!(err.starts_with("fluxgate: migration 1 (clear of circle 0) failed after "), "{err}");
    let errors: Vec<_> = err.lines().skip(1).collect();
    for name in ["m0", "m1"] {
        assert!(errors.iter().any(|line| line.starts_with("  ") && line.contains(name)), "{name}: {err}");
    }
    let (status, out, _) = run(&cluster.proxy.url(), "jobs");
    assert!(status == 0 && out.contains("migration 1 (clear of circle 0): 100.0% failed: "), "{out}");
}

#[test]
fn one_that_is_under_way_can_be_watched_paused_and_cancelled() {
    let cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..3000);
    let url = cluster.proxy.url();
    let nothing = run(&url, "--watch");
    assert!(nothing.0 == 2 && nothing.2.contains("no migration is running"), "{nothing:?}");

    let nowhere = run(&url, "clear --circle 9");
    assert!(
        nowhere.0 == 2 && nowhere.2.contains("no circle 9; the proxy has 0 (circle-1), 1 (circle-2)"),
        "{nowhere:?}"
    );
    let begun = run(&url, "recovery --from circle-1 --to 1 --rate 2k --detach");
    assert_eq!(begun, (0, "1\n".to_owned(), String::new()));
    let (any, named) = (watching(&cluster.proxy, "--watch"), watching(&cluster.proxy, "watch 1"));
    let other = run(&url, "resync --hours 1");
    assert!(other.0 == 2 && other.2.contains("the migration did not start: circle 1 is migrating"), "{other:?}");

    assert_eq!(run(&url, "pause 1").0, 0);
    assert!(eventually(Duration::from_secs(20), || job(&cluster.proxy, 1)["state"] == "paused"));
    // A watcher asks twice a second; on a busy machine it may have started only now.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(run(&url, "resume 1").0, 0);
    std::thread::sleep(Duration::from_secs(2));

    // Stopping a watcher does not stop the migration.
    kill_process(Pid::from_child(&named), Signal::INT).unwrap();
    let left = ended(named.wait_with_output().unwrap());
    assert!(left.0 == 130 && left.1.contains("migration 1 continues"), "{left:?}");
    assert_eq!(job(&cluster.proxy, 1)["state"], "running");

    assert_eq!(run(&url, "cancel 1"), (0, "migration 1: cancel is accepted\n".to_owned(), String::new()));
    let watched = ended(any.wait_with_output().unwrap());
    assert_eq!(watched.0, 1, "{watched:?}");
    assert!(watched.1.contains("% paused") && watched.1.contains("% running"), "{watched:?}");
    assert!(watched.2.contains("migration 1 (recovery from circle 0 to 1) cancelled after "), "{watched:?}");
    let late = run(&url, "cancel 1");
    assert!(late.0 == 2 && late.2.contains("migration 1 has ended"), "{late:?}");
    let unknown = run(&url, "watch 7");
    assert!(unknown.0 == 2 && unknown.2.contains("has no migration 7"), "{unknown:?}");
}

#[test]
fn a_watch_goes_on_when_the_proxy_starts_again() {
    let mut cluster = Cluster::start(&[1, 1]);
    cluster.fill(0..1500);
    let watch = watching(&cluster.proxy, "recovery --from 0 --to 1 --rate 10k");
    let begun = || cluster.proxy.get("/migrate/jobs").is_ok_and(|(_, text)| text.contains("\"running\""));
    assert!(eventually(Duration::from_secs(20), begun));
    std::thread::sleep(Duration::from_secs(1));
    cluster.proxy.kill();
    std::thread::sleep(Duration::from_secs(1));
    cluster.proxy.restart().unwrap();
    let (status, out, err) = ended(watch.wait_with_output().unwrap());
    assert_eq!((status, &err[..]), (0, ""), "{out}");
    assert!(out.contains("waiting until it answers again\n") && out.contains("is done after"), "{out}");
    cluster.check(true);
}

#[test]
fn what_cannot_begin_ends_with_two_and_says_why() {
    let port = Port::of_loopback().unwrap();
    let away = format!("http://{}", port.addr());
    let standin = StandIn::with_databases(&[DB]).unwrap();
    let config = ProxyConfig::new(&[vec![standin.url()]]).set("username", "admin").set("password", "geheim");
    let proxy = crate::support::start(&config);
    for (url, words, why) in [
        (&away, "clear --circle 0", "does not answer"),
        (&away, "watch 1", "does not answer"),
        (&standin.url(), "jobs", "404"),
        (&proxy.url(), "jobs", "--user"),
        (&proxy.url(), "jobs --user admin --password wrong", "--user"),
        (&proxy.url(), "clear --circle 5 --user admin --password geheim", "there is no circle 5; the proxy has 0"),
        (&proxy.url(), "clear", "--circle"),
        (&proxy.url(), "jobs --password geheim", "requires --user"),
        (&"proxy:7076".to_owned(), "jobs", "write http://host:port"),
    ] {
        let (status, out, err) = run(url, words);
        assert_eq!((status, &out[..]), (2, ""), "{words}: {err}");
        assert!(err.contains(why) && !err.contains("geheim"), "{words}: {err}");
    }
    let by_environment = migrate(&proxy.url(), "jobs --user admin").env("FLUXGATE_PASSWORD", "geheim").output();
    assert_eq!(ended(by_environment.unwrap()), (0, "there are no migrations\n".to_owned(), String::new()));
}
