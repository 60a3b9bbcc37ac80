//! Promise: InfluxDB's shell `influx` prints the same through the proxy as directly.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use fluxgate::lab::influxd::die_with_us;

use crate::world::OracleAndCluster;

/// `-execute` and its options.
const COMMANDS: &[&[&str]] = &[
    &["-execute", "SHOW DATABASES"],
    &["-execute", "SHOW DATABASES", "-format", "json"],
    &["-execute", "SHOW DATABASES", "-format", "csv"],
    &["-database", "a", "-execute", "SHOW MEASUREMENTS", "-format", "column"],
    &["-database", "a", "-execute", "SELECT * FROM cpu LIMIT 5"],
    &["-database", "a", "-execute", "SELECT * FROM cpu, mem, net LIMIT 3", "-format", "csv"],
    &["-database", "a", "-execute", "SELECT * FROM cpu, mem GROUP BY * LIMIT 1", "-format", "json", "-pretty"],
    &["-database", "a", "-execute", "SELECT mean(usage) FROM cpu, mem GROUP BY host", "-precision", "rfc3339"],
    &["-database", "a", "-execute", "SELECT v FROM counter, gaps LIMIT 3", "-precision", "s"],
    &["-database", "a", "-execute", "SELECT v FROM counter, gaps LIMIT 3", "-precision", "ms", "-format", "json"],
    &["-database", "a", "-execute", "SELECT v FROM counter, gaps LIMIT 3", "-precision", "h", "-format", "csv"],
    &["-database", "a", "-execute", "SELECT * FROM str", "-format", "csv"],
    &["-database", "a", "-execute", "SELECT * FROM str, flag", "-format", "json"],
    &["-database", "a", "-execute", "SELECT * FROM ints, floats"],
    &["-database", "a", "-execute", "SELECT v FROM alone; SELECT v FROM counter LIMIT 1; SHOW TAG KEYS FROM /cpu/"],
    &["-database", "a", "-execute", "SELECT v FROM alone; SELECT mean(v), v FROM alone; SELECT v FROM alone"],
    &["-database", "a", "-execute", "SHOW SERIES", "-format", "csv"],
    &["-database", "a", "-execute", "SHOW FIELD KEYS"],
    &["-database", "a", "-execute", "SHOW TAG VALUES WITH KEY = host"],
    &["-database", "a", "-execute", "SELECT usage FROM cpu", "-format", "csv"],
    &["-database", "a", "-execute", "SELECT v FROM /.*/ LIMIT 1", "-format", "json"],
    &["-database", "a", "-execute", "SELECT FROM"],
    &["-database", "nosuch", "-execute", "SELECT * FROM cpu"],
    &["-execute", "SELECT * FROM cpu"],
    &["-execute", "SELECT * FROM a.days.cpu"],
    &["-database", "a", "-execute", "INSERT typed,by=hand v=1,s=\"two words\" 1700000000000000000"],
    &["-database", "a", "-execute", "INSERT INTO days typed,by=hand v=2 1700000000000000000"],
    &["-database", "a", "-execute", NOT_A_LINE],
    &["-execute", "CREATE DATABASE made; SHOW DATABASES"],
    &["-execute", "DROP DATABASE made"],
];

/// The answer to it departs: the proxy also tells which lines were refused.
const NOT_A_LINE: &str = "INSERT typed v=";

/// What somebody types.
const TYPED: &str = "use nosuch
use a
SELECT * FROM cpu LIMIT 2
use a.days
SELECT * FROM cpu LIMIT 2
SHOW MEASUREMENTS
precision rfc3339
SELECT v FROM autogen.counter, autogen.gaps LIMIT 2
format json
SELECT * FROM slow
format csv
SELECT mean(usage) FROM a.autogen.cpu, a.autogen.mem GROUP BY host
chunked
SELECT * FROM daily
chunk size 2
chunked
SELECT * FROM daily
use \"c d\".\"r p\"
SELECT * FROM \"x y\" LIMIT 2
INSERT typed v=3 1700000000000000000
clear database
SELECT * FROM cpu
exit
";

const IMPORT: &str = "# DDL
CREATE DATABASE imported
CREATE RETENTION POLICY p ON imported DURATION INF REPLICATION 1

# DML
# CONTEXT-DATABASE: imported
# CONTEXT-RETENTION-POLICY: autogen
m,k=a v=1 1700000000
m,k=b v=2 1700000001
other v=3i 1700000002
# CONTEXT-RETENTION-POLICY: p
m,k=a v=4 1700000003
";

fn influx(addr: SocketAddr) -> Command {
    let mut command = Command::new("influx");
    command.args(["-host", &addr.ip().to_string(), "-port", &addr.port().to_string()]);
    command.env_remove("INFLUX_USERNAME").env_remove("INFLUX_PASSWORD").stdin(Stdio::null());
    die_with_us(&mut command);
    command
}

/// Exit code and what was printed, without the port and the version, which differ.
fn printed(addr: SocketAddr, output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).replace(&addr.to_string(), "ADDR").replace('\r', "");
        let lines = text.lines().filter(|line| !line.starts_with("Connected to http"));
        lines.map(|line| line.to_owned() + "\n").collect()
    };
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The same without the field `refused` that a refused write has here.
fn without_refused(text: &str) -> String {
    let (before, after) = text.split_once(",\"refused\":{").expect("the refused lines are told");
    let (_, rest) = after.split_once("}}\n").expect("the last field");
    format!("{before}}}\n{rest}")
}

#[test]
fn influx_prints_the_same_through_the_proxy() {
    let is_there = Command::new("influx").arg("-version").output().is_ok();
    assert!(is_there, "influx is not on PATH: run `make setup`");
    let mut world = OracleAndCluster::start(false);
    given_on_the_command_line(&world);
    typed_at_the_prompt(&world);
    imported_from_a_file(&mut world);
}

fn given_on_the_command_line(world: &OracleAndCluster) {
    let sides = [world.oracle.addr(), world.cluster()];
    let mut answers = 0;
    for arguments in COMMANDS {
        let [oracle, mut cluster] = sides.map(|addr| printed(addr, &influx(addr).args(*arguments).output().unwrap()));
        if arguments.last() == Some(&NOT_A_LINE) {
            cluster.1 = without_refused(&cluster.1);
        }
        assert_eq!(cluster, oracle, "{arguments:?}");
        answers += usize::from(!oracle.1.is_empty());
        world.drain();
    }
    assert!(answers > COMMANDS.len() - 8, "only {answers} printed anything");
    // The points of both kinds of INSERT have arrived.
    let typed = ["-database", "a", "-execute", "SELECT * FROM autogen.typed, days.typed", "-format", "csv"];
    let [oracle, cluster] = sides.map(|addr| printed(addr, &influx(addr).args(typed).output().unwrap()));
    assert_eq!(cluster, oracle);
    assert_eq!(oracle.1.matches(",hand").count(), 2, "{}", oracle.1);
}

/// `use` and the like work at a prompt only, so it is given a terminal.
fn typed_at_the_prompt(world: &OracleAndCluster) {
    let sides = [world.oracle.addr(), world.cluster()];
    let [oracle, cluster] = sides.map(|addr| {
        let mut command = Command::new("script");
        // Text that is typed before the prompt appears would be echoed before the prompt.
        command.args([
            "--echo",
            "never",
            "-qec",
            &format!("influx -host {} -port {}", addr.ip(), addr.port()),
            "/dev/null",
        ]);
        command.env("HOME", world.proxy.data_dir()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        die_with_us(&mut command);
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(TYPED.as_bytes()).unwrap();
        printed(addr, &child.wait_with_output().unwrap())
    });
    assert_eq!(cluster, oracle);
    for word in ["Using database a", "Using retention policy days", "daily,2023-11-14", "x y,20", "Database nosuch"] {
        assert!(oracle.1.contains(word), "{word}: {}", oracle.1);
    }
}

fn imported_from_a_file(world: &mut OracleAndCluster) {
    let file = world.proxy.data_dir().join("import.txt");
    std::fs::write(&file, IMPORT).unwrap();
    for addr in [world.oracle.addr(), world.cluster()] {
        let output = influx(addr).args(["-import", "-precision", "s", "-path"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
        assert!(said.contains("Processed 2 commands") && said.contains("Failed 0 inserts"), "{said}");
    }
    world.drain();
    let query = |text| crate::corpus::made("imported", "imported", text, crate::corpus::Kind::Rows);
    let queries = ["SELECT * FROM autogen.m, p.m, other", "SHOW RETENTION POLICIES", "SHOW SERIES", "SHOW FIELD KEYS"];
    world.pair.agree("imported", &queries.map(query));
}
