//! A proxy before a real influxd that can hold back, drop or falsely acknowledge requests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use super::support::Influxd;

/// What happens to a request.
#[derive(PartialEq, Eq)]
pub enum Then {
    Pass,
    /// The connection stays open without an answer.
    Hang,
    /// It is answered 204, and not passed on.
    Acknowledge,
}

/// Starts a proxy before `influxd` and returns its URL. `look` decides about each request, which waits meanwhile.
pub fn intercept(influxd: &Influxd, look: impl Fn(&str) -> Then + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let behind = influxd.url().trim_start_matches("http://").to_owned();
    let look = Arc::new(look);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, look, behind) = (client.unwrap(), Arc::clone(&look), behind.clone());
            thread::spawn(move || {
                let request = whole_request(&mut client);
                let then = look(&String::from_utf8_lossy(&request));
                if then != Then::Pass {
                    if then == Then::Acknowledge {
                        let _ = client.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
                        let _ = client.shutdown(Shutdown::Write);
                    }
                    // Until the client closes the connection.
                    let _ = client.read(&mut [0]);
                    return;
                }
                let server = TcpStream::connect(behind).unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let _ = (&server).write_all(&request);
                        let _ = std::io::copy(&mut &client, &mut &server);
                        let _ = server.shutdown(Shutdown::Write);
                    });
                    let _ = std::io::copy(&mut &server, &mut &client);
                    let _ = client.shutdown(Shutdown::Write);
                });
            });
        }
    });
    url
}

fn whole_request(client: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let mut buffer = [0; 64 * 1024];
    loop {
        let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            if request.len() >= head.len() + 4 + length {
                return request;
            }
        }
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return request,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
}
