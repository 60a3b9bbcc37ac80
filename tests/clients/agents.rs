//! Programs that watch machines: Glances, Icinga 2 and collectd.

use std::process::{Command, Stdio};

use fluxgate::lab::influxd::die_with_us;
use fluxgate::lab::port::free_for_udp;
use fluxgate::lab::proxy::eventually;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{DB, DRAINED, Installation, PATIENCE, USERS, contents, executable, installed, run};

#[test]
fn glances_exports_to_each_version() {
    for (user, password) in USERS {
        let world = Installation::start((user, password));
        let at = world.proxy.addr();
        let (host, port) = (at.ip(), at.port());
        let token = if user.is_empty() { "any".to_owned() } else { format!("{user}:{password}") };
        let config = format!(
            "[influxdb]\nhost={host}\nport={port}\nuser={}\npassword={}\ndb={DB}\n\
             [influxdb2]\nhost={host}\nport={port}\nprotocol=http\norg=any\nbucket={DB}\ntoken={token}\ninterval=1\n\
             [influxdb3]\nhost=http://{host}:{port}\nport={port}\norg=any\ndatabase={DB}\ntoken={token}\n",
            if user.is_empty() { "any" } else { user },
            if user.is_empty() { "any" } else { password },
        );
        std::fs::write(world.file("glances.conf"), config).unwrap();
        for version in ["influxdb", "influxdb2", "influxdb3"] {
            world.clear();
            let arguments =
                ["-C", &world.file("glances.conf"), "--export", version, "-q", "-t", "1", "--stop-after", "3"];
            let printed =
                run(Command::new(installed("python/bin/glances")).args(arguments).env("HOME", world.file("")));
            let held = world.circles_agree(version);
            assert!(held.iter().any(|point| point.contains("mem")), "{version} {user}: {held:?} {printed}");
        }
    }
}

/// All processes of a started program, of which some do not end when asked.
struct ProcessGroup(std::process::Child);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command, log: &str) -> ProcessGroup {
    let log = std::fs::File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    die_with_us(command);
    ProcessGroup(command.spawn().unwrap())
}

#[test]
fn collectd_writes_line_protocol_over_udp() {
    let addr = free_for_udp().unwrap();
    let world = Installation::start_with(USERS[0], Some(addr));
    let config = format!(
        "Hostname \"machine\"\nFQDNLookup false\nInterval 1\nBaseDir \"{0}\"\nPIDFile \"{0}/pid\"\n\
         LoadPlugin load\nLoadPlugin memory\nLoadPlugin uptime\nLoadPlugin write_influxdb_udp\n\
         <Plugin write_influxdb_udp>\nServer \"{1}\" \"{2}\"\n</Plugin>\n",
        world.file(""),
        addr.ip(),
        addr.port()
    );
    std::fs::write(world.file("collectd.conf"), config).unwrap();
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", PATIENCE]).arg(executable("collectd")).args(["-f", "-C", &world.file("collectd.conf")]);
    let group = start(&mut command, &world.file("collectd.log"));
    let enough = || {
        let held = || world.circles[0].iter().filter_map(|server| server.query(DB, "SELECT * FROM /.*/").ok());
        let of = |name: &str| held().any(|answer| answer.to_string().contains(&format!("\"name\":\"{name}\"")));
        ["load", "memory", "uptime"].into_iter().all(of)
    };
    let wrote = eventually(DRAINED, enough);
    drop(group);
    let log = std::fs::read_to_string(world.file("collectd.log")).unwrap();
    assert!(wrote, "{log}\n{}", world.proxy.stderr());
    world.circles_agree("collectd");
}

#[test]
fn icinga_2_writes_as_to_version_1_and_2() {
    for (user, password) in USERS {
        let world = Installation::start((user, password));
        world.clear();
        let at = world.proxy.addr();
        let to = format!("host = \"{}\"; port = {}; flush_interval = 1s; flush_threshold = 3", at.ip(), at.port());
        let templates = |prefix: &str| {
            ["host", "service"].map(|kind| {
                format!(
                    "{kind}_template = {{ measurement = \"{prefix} ${kind}.check_command$\"; \
                     tags = {{ hostname = \"$host.name$\"; {kind} = \"${kind}.name$\" }} }}\n"
                )
            })
        };
        let basic = if user.is_empty() {
            String::new()
        } else {
            format!("basic_auth = {{ username = \"{user}\"; password = \"{password}\" }}\n")
        };
        let config = format!(
            "include <itl>\nobject CheckerComponent \"checker\" {{}}\nobject Endpoint \"here\" {{}}\n\
             object Zone \"here\" {{ endpoints = [\"here\"] }}\n\
             object Host \"machine\" {{ check_command = \"random\"; check_interval = 1s; retry_interval = 1s }}\n\
             for (i in range(5)) {{ object Service \"service, \" + i {{\n\
             host_name = \"machine\"; check_command = \"random\"; check_interval = 1s; retry_interval = 1s }} }}\n\
             object InfluxdbWriter \"one\" {{ {to}; database = \"{DB}\"\n\
             enable_send_metadata = true; enable_send_thresholds = true\n{basic}{} }}\n\
             object Influxdb2Writer \"two\" {{ {to}; organization = \"any\"; bucket = \"{DB}\"\n\
             auth_token = \"{user}:{password}\"\n{} }}\n",
            templates("one").concat(),
            templates("two").concat(),
        );
        std::fs::write(world.file("icinga.conf"), config).unwrap();
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", PATIENCE]).arg(executable("icinga2"));
        let [account, group] = ["-un", "-gn"].map(|what| run(Command::new("id").arg(what)).trim().to_owned());
        command.args(["daemon", "-c", &world.file("icinga.conf")]);
        command.args([format!("-DRunAsUser={account}"), format!("-DRunAsGroup={group}")]);
        for folder in ["DataDir", "CacheDir", "InitRunDir", "LogDir", "SpoolDir"] {
            command.arg(format!("-D{folder}={}", world.file("")));
        }
        for file in ["VarsPath", "ObjectsPath", "ModAttrPath", "StatePath", "PidPath"] {
            command.arg(format!("-D{file}={}", world.file(file)));
        }
        let group = start(&mut command, &world.file("icinga.log"));
        let wrote = eventually(DRAINED, || {
            let held = contents(&world.circles[0]);
            ["one random", "two random"]
                .iter()
                .all(|name| held.iter().filter(|point| point.contains(name)).count() > 40)
        });
        drop(group);
        let log = std::fs::read_to_string(world.file("icinga.log")).unwrap();
        assert!(wrote, "{user}: {log}\n{}", world.proxy.stderr());
        assert!(!log.contains("Unexpected response"), "{log}");
        world.circles_agree("icinga2");
    }
}
