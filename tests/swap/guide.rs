//! The guide, word for word: its commands are run over files of both versions and recorded cache files.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use fluxgate::lab::port::Port;
use fluxgate::lab::stand_in::StandIn;

const GUIDE: &str = include_str!("../../docs/migrating-from-influx-proxy.md");
const CACHE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/cache");

/// A second of import or more.
const BAD_BLOCKS: usize = 4;

/// A block as influx-proxy writes it: length, name, gzip.
fn bad_block() -> Vec<u8> {
    let mut bytes = b"db ".to_vec();
    let mut gzip = GzEncoder::new(&mut bytes, Compression::fast());
    gzip.write_all(&b"bad\n".repeat(250_000)).unwrap();
    gzip.finish().unwrap();
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// The commands of the steps: those before the first heading behind the title.
fn steps() -> String {
    let steps = GUIDE.split("\n## ").next().unwrap();
    let blocks = steps.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.collect::<Vec<_>>().join("echo ---\n")
}

/// The services, and a curl that says nothing of its progress. influx-proxy only makes its files.
const SERVICES: &str = r#"
set -eu
systemctl() {
  case "$*" in
    "stop influx-proxy") ;;
    "start fluxgate") fluxgate -config FILE > fluxgate.log 2>&1 & proxy=$!
      until command curl -sf http://ADDR/ping; do kill -0 $proxy; sleep 0.05; done ;;
    "stop fluxgate") ls data/*.imported; kill $proxy; wait $proxy ;;
    "start influx-proxy") touch data/influxdb-1-1.dat ;;
    *) echo "systemctl $*" >&2; exit 1 ;;
  esac
}
curl() { command curl --silent --show-error --fail "$@"; }
trap 'kill -9 ${proxy:-$$} 2> /dev/null || true' EXIT
"#;

/// Follows the steps with this file and cache file.
fn follow(name: &str, text: &str, cache: &str) {
    let backends: Vec<_> = (0..4).map(|_| StandIn::with_databases(&["db"]).unwrap()).collect();
    let port = Port::of_loopback().unwrap();
    let addr = port.addr().to_string();
    let mut text = text.replace("\":7076\"", &format!("\"{addr}\""));
    for (number, backend) in backends.iter().enumerate() {
        text = text.replace(&format!("http://127.0.0.1:{}", 8086 + number), &backend.url());
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), text).unwrap();
    std::fs::create_dir(dir.path().join("data")).unwrap();
    let [mut dat, rec] = ["dat", "rec"].map(|ending| {
        let recorded = Path::new(CACHE).join(format!("{cache}.{ending}"));
        std::fs::read(recorded).unwrap()
    });
    // Blocks without a good line before what is left of it, so that nothing is queued for a while.
    let delivered = usize::try_from(u64::from_be_bytes(rec[..].try_into().unwrap())).unwrap();
    dat.splice(delivered..delivered, bad_block().repeat(BAD_BLOCKS));
    for (ending, bytes) in [("dat", dat), ("rec", rec)] {
        std::fs::write(dir.path().join(format!("data/influxdb-1-1.{ending}")), bytes).unwrap();
    }

    let script = format!("{SERVICES}{}", steps());
    let script = script.replace("proxy.json", name).replace("FILE", name).replace("127.0.0.1:7076", &addr);
    let script = script.replace("ADDR", &addr);
    let program = Path::new(env!("CARGO_BIN_EXE_fluxgate")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("timeout");
    bash.args(["100", "bash", "-c", &script]).current_dir(dir.path()).env("PATH", path).stdin(Stdio::null());
    let output = bash.output().unwrap();
    let read = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let log = std::fs::read_to_string(dir.path().join("fluxgate.log")).unwrap_or_default();
    let (out, err) = (read(&output.stdout), read(&output.stderr));
    assert!(output.status.success(), "{name}: {:?}\n{out}\n{err}\n{log}", output.status);

    let blocks: Vec<_> = out.split("---\n").collect();
    assert!(blocks[0].contains(&format!("{name} is valid")), "{out}");
    assert!(blocks[0].contains("influxdb-1-1.dat: the start imports it for backend influxdb-1-1"), "{out}");
    assert!(blocks[2].contains("\"queued\":0,"), "{out}");
    assert_eq!(backends[0].serials("db").runs(), [(200, 399)], "what influx-proxy had not delivered: {log}");
    assert!(blocks[3].contains("influxdb-1-1.dat.imported\n"), "the wait was over before the import: {out}{log}");
    assert!(dir.path().join("data/influxdb-1-1.dat").is_file(), "influx-proxy is back");
    assert!(err.contains("everything has been delivered"), "{err}");
}

#[test]
fn the_guide_is_followed_with_files_of_both_versions() {
    follow("proxy.json", include_str!("../golden/proxy.json"), "v2.4");
    follow("proxy.json", include_str!("../golden/proxy-2.5.json"), "v2.5");
    follow("proxy.toml", include_str!("../golden/proxy-2.5.toml"), "v2.5");
    follow("proxy.yaml", include_str!("../golden/proxy-2.5.yaml"), "v2.5");
}

#[test]
fn the_guide_is_one_page() {
    assert!(GUIDE.lines().count() <= 120, "{} lines", GUIDE.lines().count());
}
