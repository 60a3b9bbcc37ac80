//! One shell that runs the commands of all documents: in a folder of its own, at free ports, with the program that was
//! built for the tests. What cannot be run in a test is in [`NOT_RUN`], with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fluxgate::lab::port::Port;
use rustix::process::{Pid, Signal, kill_process_group};

/// All commands together.
const TIMEOUT: Duration = Duration::from_secs(120);
/// The ports in the documents: four servers, a fifth one that is added, the proxy.
const PORTS: [&str; 6] = ["18086", "18087", "18088", "18089", "18090", "7076"];
/// Between the outputs of two blocks.
const MARK: char = '\u{1}';

/// Commands (as patterns of `case`) that are not run as they stand, what is done instead, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("cargo build --release", "test -x target/release/fluxgate", "the program of the tests lies there"),
    ("cargo test --test *", "test -e $ROOT/tests/$3.rs || test -e $ROOT/tests/$3/main.rs", "a test that runs tests"),
    ("make -C .. demo", ":", "half a minute; tests/demo.rs runs it"),
    ("make setup test", ":", "installs packages, and a test that runs tests"),
    ("make bench", ":", "takes half an hour on a machine that does nothing else"),
    ("make fuzz", ":", "takes minutes, and another compiler"),
    ("make sim", ":", "takes minutes, and a build of its own"),
    ("make sim SEEDS=100000", ":", "takes minutes, and a build of its own"),
    ("make sim SEED=4711", ":", "takes minutes, and a build of its own"),
    ("make sim PROFILE=LongOutage", ":", "takes minutes, and a build of its own"),
    ("make sim-mutants", ":", "takes minutes, and a build of its own"),
    ("make crash", ":", "takes an hour; tests/faults/kill_nine.rs runs some rounds"),
    ("sudo *", ":", "a test changes nothing outside its folder"),
    (
        "systemctl restart fluxgate",
        "restart",
        "the proxy of the quick start is no service: it is started again by hand",
    ),
    ("systemctl stop influx-proxy", ":", "there is none; tests/swap/guide.rs follows the steps over its files"),
    ("systemctl start fluxgate", ":", "the proxy of the quick start runs already"),
    ("systemctl stop fluxgate", "kill $proxy; wait $proxy || true", "it is no service: it is stopped by hand"),
    ("systemctl start influx-proxy", "restart", "there is none, and the other documents need the quick start's proxy"),
    ("systemctl reload fluxgate", "kill -HUP $proxy", "the same: SIGHUP to the proxy of the quick start"),
];

/// What the shell knows before the first command.
const PRELUDE: &str = r#"
set -eu
export INFLUXDB_REPORTING_DISABLED=true INFLUXDB_MONITOR_STORE_ENABLED=false INFLUXDB_HTTP_LOG_ENABLED=false
# Whatever happens to the test, nothing that was started here stays.
(while kill -0 $TESTER 2>/dev/null; do sleep 0.5; done; kill -KILL 0) > /dev/null 2>&1 &
curl() { command curl --silent --show-error --max-time 60 --write-out '%{stderr}STATUS %{http_code}\n' "$@"; }
restart() {
  kill $proxy 2> /dev/null || true
  wait $proxy || true
  fluxgate -config proxy.json >> fluxgate.log 2>&1 &
  proxy=$!
  until curl -sf http://127.0.0.1:7076/ping; do sleep 0.1; done
}
"#;

pub struct Session {
    script: String,
    /// Of here, in the order of [`PORTS`].
    ports: Vec<String>,
    /// The same, for as long as the session may start servers there.
    _kept: [Port; PORTS.len()],
    dir: tempfile::TempDir,
}

pub struct Outcome {
    /// By place of the block: what it printed.
    pub outputs: BTreeMap<String, String>,
    /// Places of blocks in which a request was answered with an error.
    pub refused: BTreeSet<String>,
    /// Entries of [`NOT_RUN`] that nobody needed.
    pub unused: Vec<&'static str>,
}

impl Session {
    pub fn new(root: &Path, program: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("fluxgate-documents-").tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("target/release")).unwrap();
        std::os::unix::fs::symlink(program, dir.path().join("target/release/fluxgate")).unwrap();
        let kept = PORTS.map(|_| Port::of_loopback().unwrap());
        let ports = kept.each_ref().map(|port| port.addr().port().to_string());
        let mut session = Self { script: String::new(), ports: ports.into(), _kept: kept, dir };
        session.script = format!("ROOT={}\nTESTER={}\n", root.display(), std::process::id());
        session.script += &(session.here(PRELUDE) + &not_run());
        session
    }

    /// A text with the ports of here.
    pub fn here(&self, text: &str) -> String {
        // In two steps: a port of here may look like one of the documents.
        let marked = |text: String, (i, port): (usize, &&str)| text.replace(port, &format!("{MARK}{i}{MARK}"));
        let text = PORTS.iter().enumerate().fold(text.to_owned(), marked);
        self.ports.iter().enumerate().fold(text, |text, (i, here)| text.replace(&format!("{MARK}{i}{MARK}"), here))
    }

    pub fn add(&mut self, place: &str, commands: &str) {
        let commands = self.here(commands);
        write!(self.script, "\nprintf '{MARK}{place}\\n'\necho '--- {place}' >&2\n{commands}\n").unwrap();
    }

    /// Runs all that was added. Panics, with what was printed, when a command fails.
    pub fn run(self) -> Outcome {
        let file = |name: &str| self.dir.path().join(name);
        std::fs::write(file("script"), &self.script).unwrap();
        let create = |name| std::fs::File::create(file(name)).unwrap();
        let mut command = Command::new("bash");
        command.arg(file("script")).current_dir(self.dir.path()).env("USED", file("used")).process_group(0);
        command.stdin(Stdio::null()).stdout(create("stdout")).stderr(create("stderr"));
        let mut shell = command.spawn().expect("bash");
        let start = Instant::now();
        let status = loop {
            match shell.try_wait().unwrap() {
                None if start.elapsed() < TIMEOUT => std::thread::sleep(Duration::from_millis(50)),
                status => break status,
            }
        };
        let group = Pid::from_raw(shell.id() as i32).expect("a process has an id");
        // Servers and proxy; an error says that none is left.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = shell.wait();
        let read = |name| String::from_utf8_lossy(&std::fs::read(file(name)).unwrap_or_default()).into_owned();
        // Header fields end with CR LF.
        let (stdout, stderr) = (read("stdout").replace('\r', ""), read("stderr"));
        if !status.is_some_and(|status| status.success()) {
            let last = stdout.rsplit(MARK).next().unwrap_or_default();
            let end = stderr.rsplit("--- ").next().unwrap_or_default();
            let proxy = read("try/fluxgate.log");
            panic!("a command failed, or all took too long: {status:?}\n{last}\n{end}\nThe proxy:\n{proxy}");
        }
        let blocks = stdout.split(MARK).skip(1).filter_map(|block| block.split_once('\n'));
        let outputs = blocks.map(|(place, output)| (place.to_owned(), output.to_owned())).collect();
        let is_refused = |line: &str| line.starts_with("STATUS 4") || line.starts_with("STATUS 5");
        let blocks = stderr.split("--- ").skip(1).filter_map(|block| block.split_once('\n'));
        let refused = blocks.filter(|(_, text)| text.lines().any(is_refused)).map(|(place, _)| place.to_owned());
        let used = read("used");
        let unused = NOT_RUN.iter().map(|(command, ..)| *command).filter(|c| !used.lines().any(|used| used == *c));
        Outcome { outputs, refused: refused.collect(), unused: unused.collect() }
    }
}

/// A function for each program of [`NOT_RUN`], which fails for a command that is not in there.
fn not_run() -> String {
    let mut programs: BTreeMap<&str, String> = BTreeMap::new();
    for (command, instead, why) in NOT_RUN {
        let program = command.split(' ').next().expect("a command begins with a program");
        let pattern = command.replace(' ', "\\ ");
        let case = format!("    {pattern}) echo '{command}' >> $USED; {instead} ;; # {why}\n");
        programs.entry(program).or_default().push_str(&case);
    }
    let function = |(program, cases): (&str, String)| {
        let unknown = format!("    *) echo \"{program} $*: not known\" >&2; exit 1 ;;\n");
        format!("{program}() {{\n  case \"{program} $*\" in\n{cases}{unknown}  esac\n}}\n")
    };
    programs.into_iter().map(function).collect()
}
