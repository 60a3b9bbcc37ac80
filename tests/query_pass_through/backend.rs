//! A backend whose answers to SELECTs a test writes byte by byte. It is healthy and knows one database; writes are
//! taken or not.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use fluxgate::lab::http1::{Request, RequestState, form_value};

/// influxd's answer without series.
pub const EMPTY: &str = "{\"results\":[{\"statement_id\":0}]}\n";

/// One database.
const DATABASES: &str = concat!(
    r#"{"results":[{"statement_id":0,"series":[{"name":"databases","columns":["name"],"values":[["db"]]}]}]}"#,
    "\n"
);

/// What to do with the connection after a SELECT.
pub enum Then {
    Keep,
    Close,
}

type Select = dyn Fn(&mut TcpStream) -> io::Result<Then> + Send + Sync;

#[derive(Default)]
pub struct SeenRequest {
    /// Connections that carried SELECTs.
    pub connections: AtomicUsize,
    pub selects: AtomicUsize,
    /// Head and form of the last SELECT.
    pub last: Mutex<(String, String)>,
    /// Writes are answered 503 and stay with the proxy.
    pub refuses_writes: AtomicBool,
}

pub struct Backend {
    addr: SocketAddr,
    pub seen: Arc<SeenRequest>,
}

impl Backend {
    /// Serves until the test ends.
    pub fn start(select: impl Fn(&mut TcpStream) -> io::Result<Then> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, select): (Arc<SeenRequest>, Arc<Select>) = (Arc::default(), Arc::new(select));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, select) = (shared.clone(), select.clone());
                std::thread::spawn(move || serve(stream, &seen, &*select));
            }
        });
        Self { addr, seen }
    }

    /// Answers every SELECT with this.
    pub fn answering(answer: &'static str) -> Self {
        Self::start(move |stream| {
            stream.write_all(answer.as_bytes())?;
            Ok(Then::Keep)
        })
    }

    /// Answers with this text as a JSON body.
    pub fn saying(text: &str) -> Self {
        let answer = whole(200, text);
        Self::start(move |stream| {
            stream.write_all(answer.as_bytes())?;
            Ok(Then::Keep)
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub fn selects(&self) -> usize {
        self.seen.selects.load(SeqCst)
    }
}

pub fn whole(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn serve(mut stream: TcpStream, seen: &SeenRequest, select: &Select) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut block, mut selected) = (Vec::new(), vec![0; 64 * 1024], false);
    loop {
        let Ok(RequestState::Whole(request)) = Request::parse(&buffer) else {
            match stream.read(&mut block)? {
                0 => return Ok(()),
                n => buffer.extend_from_slice(&block[..n]),
            }
            continue;
        };
        let form = String::from_utf8_lossy(&request.body(&buffer)).into_owned();
        let head_len = request.len - request.body(&buffer).len();
        let head = String::from_utf8_lossy(&buffer[..head_len]).into_owned();
        let q = form_value(&form, "q").unwrap_or_default().to_lowercase();
        if request.path() == "/query" && (q.contains("select") || q.contains("nonsense")) {
            if !std::mem::replace(&mut selected, true) {
                seen.connections.fetch_add(1, SeqCst);
            }
            seen.selects.fetch_add(1, SeqCst);
            *seen.last.lock().unwrap() = (head, form);
            if let Then::Close = select(&mut stream)? {
                return Ok(());
            }
        } else {
            let answer = match request.path() {
                "/write" if seen.refuses_writes.load(SeqCst) => whole(503, "{\"error\":\"not now\"}"),
                "/write" | "/ping" => "HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.8.10\r\n\r\n".into(),
                _ if q.contains("databases") => whole(200, DATABASES),
                _ => whole(200, EMPTY),
            };
            stream.write_all(answer.as_bytes())?;
        }
        buffer.drain(..request.len);
    }
}
