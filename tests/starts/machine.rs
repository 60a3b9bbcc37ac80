//! Starts on machines of every kind: names, IPv6, another user, few file descriptors, odd folders.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fluxgate::lab::client::Client;
use fluxgate::lab::influxd::Influxd;
use fluxgate::lab::proxy::ProxyConfig;

use crate::support::start;
use crate::{DB, circles, servers, works, works_in};

/// Prepares the start with a script, which ends with the program.
fn launched_by(config: ProxyConfig, words: &[&str], script: &str) -> ProxyConfig {
    let script = format!("set -e\n{script}\nexec \"$@\"");
    let words = words.iter().copied().chain(["sh", "-c", &script, "sh"]);
    config.launched_by(words.map(str::to_owned).collect::<Vec<_>>())
}

/// This process may do that; says so if not.
fn possible(what: &str, command: &[&str]) -> bool {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("SKIPPED: {what}: {command:?}: {output:?}");
    }
    done
}

/// A mount namespace, which ends with the program and changes nothing outside.
const NAMESPACE: [&str; 2] = ["unshare", "--mount"];

fn namespaces() -> bool {
    possible("no mount namespace here", &["unshare", "--mount", "true"])
}

#[test]
fn localhost_as_the_name_of_everything() {
    let servers = Influxd::start_several(2).unwrap();
    let mut proxy = start(&circles(&servers));
    let port = proxy.addr().port();
    proxy.edit(|config| config["listen_addr"] = format!("localhost:{port}").into()).unwrap();
    proxy.restart().unwrap();
    works(proxy, 2);
}

#[test]
fn names_from_etc_hosts() {
    if !namespaces() {
        return;
    }
    let mut servers = servers(2);
    servers[0].call("influx-one.test");
    servers[1].call("influx-two");
    let script = "echo '127.0.0.1 localhost influx-one.test influx-two' > hosts; mount --bind hosts /etc/hosts";
    works(start(&launched_by(circles(&servers), &NAMESPACE, script)), 2);
}

/// An address at which a server can be reached, until it is dropped.
struct Door {
    addr: SocketAddr,
    open: Arc<Mutex<Option<Vec<TcpStream>>>>,
}

impl Door {
    fn new(at: SocketAddr, server: SocketAddr) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        let (addr, open) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Some(Vec::new()))));
        let streams = open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let mut streams = streams.lock().unwrap();
                let Some(streams) = streams.as_mut() else { return };
                let server = TcpStream::connect(server).unwrap();
                let pairs = [(&client, &server), (&server, &client)];
                for (mut from, mut to) in pairs.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap())) {
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
                streams.extend([client, server]);
            }
        });
        Self { addr, open }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let streams = self.open.lock().unwrap().take().unwrap_or_default();
        streams.iter().for_each(|stream| _ = stream.shutdown(std::net::Shutdown::Both));
        // The listener ends with its thread.
        drop(TcpStream::connect(self.addr));
        while TcpStream::connect(self.addr).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Nothing but the query tells that the backend has moved: its name would be looked up again after 10 s.
#[test]
fn a_query_finds_a_backend_whose_name_has_another_address() {
    if !namespaces() {
        return;
    }
    let server = Influxd::start().unwrap();
    server.create_database(DB).unwrap();
    assert_eq!(Client::connect(server.addr()).unwrap().write(DB, "m n=7i 1\n").unwrap().status, 204);
    let mut door = Door::new("127.0.0.2:0".parse().unwrap(), server.addr());
    let port = door.addr.port();
    let config = ProxyConfig::new(&[vec![format!("http://moves.test:{port}")]]).set("check_interval", 3600);
    let script = "echo '127.0.0.2 moves.test' > hosts; mount --bind hosts /etc/hosts";
    let proxy = start(&launched_by(config, &NAMESPACE, script));
    let hosts = proxy.data_dir().with_file_name("hosts");
    let answer = || {
        let asked = Instant::now();
        let reply = Client::connect(proxy.addr()).unwrap().get(&format!("/query?db={DB}&q=SELECT+n+FROM+m")).unwrap();
        (reply.status, reply.text().contains(",7]"), asked.elapsed() < Duration::from_secs(5))
    };
    assert_eq!(answer(), (200, true, true), "{}", proxy.stderr());
    for last in [3, 4, 5] {
        // A probe may be under way. Cut off it would find the backend down, and nobody asks one that is down.
        std::thread::sleep(Duration::from_secs(1));
        drop(door);
        std::fs::write(&hosts, format!("127.0.0.{last} moves.test\n")).unwrap();
        door = Door::new(SocketAddr::from(([127, 0, 0, last], port)), server.addr());
        assert_eq!(answer(), (200, true, true), "{}", proxy.stderr());
    }
}

#[test]
fn ipv6_for_clients_and_backends() {
    let ip = IpAddr::from(Ipv6Addr::LOCALHOST);
    if let Err(why) = TcpListener::bind((ip, 0)) {
        eprintln!("SKIPPED: no ::1 here: {why}");
        return;
    }
    let servers: Vec<_> = (0..2).map(|_| Influxd::start_on(ip).unwrap()).collect();
    assert!(servers[0].url().starts_with("http://[::1]:"));
    works(start(&circles(&servers).listen_on(ip)), 2);
}

#[test]
fn a_user_without_rights() {
    let program = env!("CARGO_BIN_EXE_fluxgate");
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--pdeathsig", "KILL"];
    let try_it = [&user[..], &["test", "-x", program]].concat();
    if !possible("not root, or the program is out of reach of others", &try_it) {
        return;
    }
    let servers = servers(2);
    let script = format!("chown -R 65534:65534 .; set -- {} \"$@\"", user.join(" "));
    works(start(&launched_by(circles(&servers), &["env"], &script)), 2);
}

#[test]
fn few_file_descriptors() {
    let servers = servers(2);
    works(start(&circles(&servers).set("workers", 2).launched_by(["prlimit", "--nofile=256"])), 2);
}

#[test]
fn data_dir_in_memory() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: no /dev/shm here");
        return;
    };
    let servers = servers(2);
    let data_dir = dir.path().join("data");
    // Little, since it is the machine's memory.
    let config = circles(&servers).set("data_dir", data_dir.display().to_string()).set("backlog_max_bytes", 64 << 20);
    works_in(&mut start(&config), 2, &data_dir);
}

#[test]
fn a_read_only_mlog_dir() {
    if !namespaces() {
        return;
    }
    let servers = servers(2);
    let script = "mkdir -p log; mount -t tmpfs -o ro none log";
    works(start(&launched_by(circles(&servers), &NAMESPACE, script)), 2);
}

/// As a service without a working directory is started. The root folder is one made for it, so that `/data`, which it
/// makes, is not this machine's.
#[test]
fn started_from_the_root_folder() {
    if !namespaces() || std::path::Path::new("/data").exists() {
        return;
    }
    let servers = servers(2);
    let script = r#"
        mkdir -p root
        for name in $(ls -A /); do
            if [ -L "/$name" ]; then [ -L "root/$name" ] || cp -P "/$name" "root/$name"
            elif [ -d "/$name" ]; then mkdir -p "root/$name"; mount --rbind "/$name" "root/$name"
            fi
        done
        set -- chroot root "$@""#;
    let mut proxy = start(&launched_by(circles(&servers), &NAMESPACE, script));
    let root = proxy.config_file().with_file_name("root");
    works_in(&mut proxy, 2, &root.join("data"));
    assert!(!std::path::Path::new("/data").exists() && !proxy.data_dir().exists());
}
