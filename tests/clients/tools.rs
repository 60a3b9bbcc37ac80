//! Tools that speak plain HTTP: curl and wget, which ask for a password only after a 401 when they are told so.

use std::process::Command;

use serde_json::Value;

use crate::{DB, Installation, USERS, run};

#[test]
fn curl_writes_whatever_it_negotiates() {
    for (user, password) in USERS {
        let world = Installation::start((user, password));
        let url = format!("{}/write?db={DB}&precision=s", world.proxy.url());
        let (lines, packed) = (world.file("points.lp"), world.file("points.gz"));
        std::fs::write(&packed, packed_by_gzip(&lines)).unwrap();
        let (lines, packed, account) = (format!("@{lines}"), format!("@{packed}"), format!("{user}:{password}"));
        let gzip = ["-H", "Content-Encoding: gzip", "--data-binary", &packed];
        for how in [
            &["--anyauth", "--data-binary", &lines][..],
            &["--anyauth", "--http1.0", "--data-binary", &lines],
            &["--anyauth", "-H", "Expect: 100-continue", "--data-binary", &lines],
            &["--anyauth", "-H", "Transfer-Encoding: chunked", "--data-binary", &lines],
            &["--basic", "-H", "Transfer-Encoding: chunked", "-H", "Expect:", "--data-binary", &lines],
            &[&["--anyauth"][..], &gzip].concat(),
            &[&["--http2"][..], &gzip].concat(),
        ] {
            world.clear();
            let status = run(Command::new("curl").args(["-sSf", "-w", "%{http_code}", "-u", &account, &url]).args(how));
            assert_eq!(status, "204", "{how:?}");
            world.all_hold_the_points(&format!("curl {how:?} {user}"));
        }
        let read = ["-sSf", "--anyauth", "-G", "--compressed", "--data-urlencode", "q=SELECT count(n) FROM /.*/"];
        let answers = [&world.plain.url(), &world.proxy.url()]
            .map(|url| run(Command::new("curl").args(read).args(["-u", &account, &format!("{url}/query?db={DB}")])));
        assert_eq!(answers[0], answers[1]);
        assert!(answers[0].contains("100"), "{answers:?}");
    }
}

#[test]
fn wget_writes_and_reads() {
    for (user, password) in USERS {
        let world = Installation::start((user, password));
        world.clear();
        let account = [format!("--user={user}"), format!("--password={password}")];
        let account = if user.is_empty() { &[][..] } else { &account };
        let url = format!("{}/write?db={DB}&precision=s", world.proxy.url());
        let lines = format!("--post-file={}", world.file("points.lp"));
        run(Command::new("wget").args(["-q", "-O-", "--tries=1", &lines, &url]).args(account));
        world.all_hold_the_points(&format!("wget {user}"));
        let [plain, proxy] = [world.plain.url(), world.proxy.url()].map(|url| {
            let url = format!("{url}/query?db={DB}&q=SELECT+count(n)+FROM+/.*/");
            let text = run(Command::new("wget").args(["-q", "-O-", "--tries=1", &url]).args(account));
            serde_json::from_str::<Value>(&text).unwrap()
        });
        assert_eq!(plain, proxy);
    }
}

fn packed_by_gzip(file: &str) -> Vec<u8> {
    Command::new("gzip").args(["-c", file]).output().unwrap().stdout
}
