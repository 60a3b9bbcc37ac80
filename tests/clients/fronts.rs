//! Proxies for HTTP in front of the proxy: haproxy and nginx, which keep connections of their own to it.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fluxgate::lab::influxd::die_with_us;
use fluxgate::lab::port::Port;
use fluxgate::lab::proxy::eventually;

use crate::{DB, Installation, USERS, executable, program, run};

/// Kills what it started.
struct Front(Child, Port);

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(world: &Installation, name: &str, config: impl Fn(SocketAddr) -> String) -> Front {
    let (port, file) = (Port::of_loopback().unwrap(), world.file("front.conf"));
    let addr = port.addr();
    std::fs::write(&file, config(addr)).unwrap();
    let mut command = Command::new(executable(name));
    if name == "nginx" {
        command.args(["-p", &world.file(""), "-e", "stderr", "-c", &file]);
    } else {
        command.args(["-db", "-f", &file]);
    }
    let log = std::fs::File::create(world.file("front.log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    die_with_us(&mut command);
    let front = Front(command.spawn().unwrap(), port);
    let up = eventually(Duration::from_secs(30), || TcpStream::connect(addr).is_ok());
    assert!(up, "{name}: {}", std::fs::read_to_string(world.file("front.log")).unwrap());
    front
}

/// The library and curl, as without it.
fn writes_pass(world: &Installation, front: &Front, name: &str) {
    let (user, password) = world.user;
    let url = format!("http://{}", front.1.addr());
    for what in ["write", "write-gzip", "read"] {
        if what != "read" {
            world.clear();
        }
        let through =
            |url: &str| run(program("influxdb_1.py").args([url, user, password, DB, &world.file("points.json"), what]));
        let got = through(&url);
        world.all_hold_the_points(&format!("{name} {what} {user}"));
        if what == "read" {
            assert_eq!(got, through(&world.plain.url()), "{name}");
        }
    }
    world.clear();
    let (url, lines) = (format!("{url}/write?db={DB}&precision=s"), format!("@{}", world.file("points.lp")));
    let account = format!("{user}:{password}");
    for how in [&["--basic"][..], &["--anyauth", "-H", "Transfer-Encoding: chunked"]] {
        let curl = ["-sSf", "-w", "%{http_code}", "-u", &account, "--data-binary", &lines, &url];
        assert_eq!(run(Command::new("curl").args(curl).args(how)), "204", "{name} {how:?}");
    }
    world.all_hold_the_points(&format!("{name} curl {user}"));
}

#[test]
fn haproxy() {
    for user in USERS {
        let world = Installation::start(user);
        let front = start(&world, "haproxy", |addr| {
            format!(
                "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n \
                 option httpchk GET /ping\n http-check expect status 204\n http-reuse always\n\
                 frontend in\n bind {addr}\n default_backend out\nbackend out\n server fluxgate {} check inter 500ms\n",
                world.proxy.addr()
            )
        });
        writes_pass(&world, &front, "haproxy");
    }
}

#[test]
fn nginx() {
    for user in USERS {
        let world = Installation::start(user);
        // One that buffers bodies, and one that passes them on as they come, over connections that stay.
        for (name, more) in [
            ("nginx", ""),
            (
                "nginx with kept connections",
                "proxy_http_version 1.1; proxy_set_header Connection ''; \
                proxy_request_buffering off; proxy_buffering off;",
            ),
        ] {
            let front = start(&world, "nginx", |addr| {
                format!(
                    "daemon off; master_process off; pid nginx.pid; events {{}}\n\
                     http {{ access_log off; client_body_temp_path body; proxy_temp_path proxied;\n\
                     fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;\n\
                     upstream fluxgate {{ server {}; keepalive 4; }}\n\
                     server {{ listen {addr}; client_max_body_size 25m;\n\
                     location / {{ proxy_pass http://fluxgate; {more} }} }} }}\n",
                    world.proxy.addr()
                )
            });
            writes_pass(&world, &front, name);
        }
    }
}
