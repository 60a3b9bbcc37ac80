//! Builds write requests: Telegraf-like lines that carry their own number.
//!
//!   cpu,host=host-007,dc=dc3,..,cpu=cpu7 usage_user=1.02,usage_system=..,usage_idle=..,n=42i 1700000000000042000
//!   | measurement | ------- host ------- | --------------- fields -------------------- | ---- timestamp --- |
//!
//! A line is three copies from small tables and two numbers, about 20 ns: this program must cost far less than the
//! server it measures. The *serial* of a point determines its measurement, host, field values and timestamp. No two
//! points of a run share a timestamp, so `count(n)` over all measurements is the number of stored points, and the set
//! of `n` shows the missing ones.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use super::args::{LoadArgs, LoadTarget};
use crate::lab::http1::url_encoded;

/// Names of Telegraf's measurements.
pub const MEASUREMENTS: [&str; 20] = [
    "cpu",
    "mem",
    "disk",
    "diskio",
    "net",
    "system",
    "processes",
    "swap",
    "kernel",
    "netstat",
    "nginx",
    "redis",
    "mysql",
    "postgresql",
    "haproxy",
    "docker",
    "zookeeper",
    "kafka",
    "ping",
    "interrupts",
];
/// Number of different texts of the float fields. A prime, so that they vary independently of measurements and hosts.
const FIELDS: usize = 251;
/// Room for the digits of a `Content-Length` and the end of the head.
const LENGTH_ROOM: usize = 24;
/// Distance between timestamps of an unpaced run in nanoseconds: a million points per second run with the clock.
const STEP_UNPACED_NS: u64 = 1_000;

/// What all requests of a run share.
pub struct Points {
    /// Request head up to and including `Content-Length: `.
    head: Vec<u8>,
    measurements: Vec<String>,
    /// `,host=..,cpu=.. `, with the space before the fields.
    hosts: Vec<String>,
    /// `usage_user=..,n=`.
    fields: Vec<String>,
    first: u64,
    /// Timestamp of the first point and distance between two points, in the run's precision.
    time_start: u64,
    time_step: u64,
    gzip: bool,
}

impl Points {
    pub fn new(args: &LoadArgs, target: &LoadTarget) -> Self {
        let mut query = format!("db={}&precision={}", url_encoded(&args.db), args.precision.parameter());
        for (name, value) in [("rp", &args.rp), ("consistency", &args.consistency)] {
            if let Some(value) = value {
                query += &format!("&{name}={}", url_encoded(value));
            }
        }
        let mut head = format!(
            "POST {}/write?{query} HTTP/1.1\r\nHost: {}\r\nUser-Agent: fluxgate-load\r\n",
            target.path, target.host
        );
        if let Some(user) = &args.username {
            use base64::Engine;
            let secret = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", args.password));
            head += &format!("Authorization: Basic {secret}\r\n");
        }
        head += "Content-Type: text/plain; charset=utf-8\r\n";
        if args.gzip {
            head += "Content-Encoding: gzip\r\n";
        }
        head += "Content-Length: ";
        let unit = args.precision.nanoseconds();
        let step_ns = 1_000_000_000u64.checked_div(args.rate).unwrap_or(STEP_UNPACED_NS);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            head: head.into_bytes(),
            measurements: (0..args.measurements).map(measurement).collect(),
            hosts: (0..args.hosts).map(host).collect(),
            fields: (0..FIELDS).map(|index| fields(index, args.all_types)).collect(),
            first: args.first,
            time_start: now.as_nanos() as u64 / unit,
            time_step: (step_ns / unit).max(1),
            gzip: args.gzip,
        }
    }

    /// Fills `request` with a whole request for the points `serial..serial + count`. Returns where the request starts
    /// in it (it ends with the buffer), and the length of its body as line protocol.
    pub fn build(&self, serial: u64, count: u64, request: &mut Vec<u8>, scratch: &mut Vec<u8>) -> (usize, usize) {
        let room = self.head.len() + LENGTH_ROOM;
        request.clear();
        request.resize(room, 0);
        let inflated = if self.gzip {
            scratch.clear();
            self.lines(serial, count, scratch);
            let mut encoder = flate2::write::GzEncoder::new(&mut *request, flate2::Compression::fast());
            encoder.write_all(scratch).and_then(|()| encoder.try_finish()).expect("a Vec takes every byte");
            scratch.len()
        } else {
            self.lines(serial, count, request);
            request.len() - room
        };
        // The head ends right before the body, so that one write sends both although the length of the head varies.
        let mut digits = itoa::Buffer::new();
        let length = digits.format(request.len() - room).as_bytes();
        let start = LENGTH_ROOM - length.len() - 4;
        let mut at = start;
        for part in [&self.head, length, b"\r\n\r\n"] {
            request[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        (start, inflated)
    }

    fn lines(&self, serial: u64, count: u64, out: &mut Vec<u8>) {
        let mut digits = itoa::Buffer::new();
        let index = serial - self.first;
        let (measurements, hosts) = (self.measurements.len() as u64, self.hosts.len() as u64);
        let mut time = self.time_start + index * self.time_step;
        // The next index of each table is counted, not divided, for each line.
        let (mut m, mut h, mut f) = (
            (index % measurements) as usize,
            (index / measurements % hosts) as usize,
            (index % FIELDS as u64) as usize,
        );
        for serial in serial..serial + count {
            out.extend_from_slice(self.measurements[m].as_bytes());
            out.extend_from_slice(self.hosts[h].as_bytes());
            out.extend_from_slice(self.fields[f].as_bytes());
            out.extend_from_slice(digits.format(serial).as_bytes());
            out.extend_from_slice(b"i ");
            out.extend_from_slice(digits.format(time).as_bytes());
            out.push(b'\n');
            time += self.time_step;
            f = if f + 1 == FIELDS { 0 } else { f + 1 };
            m += 1;
            if m == self.measurements.len() {
                m = 0;
                h = if h + 1 == self.hosts.len() { 0 } else { h + 1 };
            }
        }
    }
}

fn measurement(index: usize) -> String {
    let name = MEASUREMENTS[index % MEASUREMENTS.len()];
    match index / MEASUREMENTS.len() {
        0 => name.into(),
        round => format!("{name}_{round}"),
    }
}

fn host(index: usize) -> String {
    let (dc, rack, cpu) = (index % 4, index % 40, index % 16);
    format!(",host=host-{index:03},dc=dc{dc},rack=r{rack:02},env=prod,cpu=cpu{cpu} ")
}

fn fields(index: usize, all_types: bool) -> String {
    let (user, system) = (index * 37 % 60, index * 11 % 30);
    let (part, idle) = (index * 7 % 100, 100 - user - system);
    let more = if all_types { format!("busy={},state=\"load {part} %\",", user > 30) } else { String::new() };
    format!("usage_user={user}.{part:02},usage_system={system}.{part:02},usage_idle={idle}.{part:02},{more}n=")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io::Read;

    use super::super::args::Unit;
    use super::*;
    use crate::lab::http1::{Request, RequestState};

    fn args() -> LoadArgs {
        LoadArgs { measurements: 30, hosts: 3, first: 95, ..LoadArgs::new("http://127.0.0.1:1/x", "a b") }
    }

    fn requests(args: &LoadArgs, counts: &[u64]) -> Vec<(Request, String)> {
        let points = Points::new(args, &LoadTarget::resolve(&args.url).unwrap());
        let (mut buffer, mut scratch, mut serial) = (Vec::new(), Vec::new(), args.first);
        counts
            .iter()
            .map(|count| {
                let (start, inflated) = points.build(serial, *count, &mut buffer, &mut scratch);
                serial += count;
                let Ok(RequestState::Whole(request)) = Request::parse(&buffer[start..]) else { panic!("not whole") };
                assert_eq!(request.len, buffer.len() - start);
                let body = request.body(&buffer[start..]).into_owned();
                let mut text = String::new();
                if request.gzip {
                    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
                } else {
                    text = String::from_utf8(body).unwrap();
                }
                assert_eq!(inflated, text.len());
                (request, text)
            })
            .collect()
    }

    #[test]
    fn each_point_carries_its_number_and_a_timestamp_of_its_own() {
        for args in [args(), LoadArgs { gzip: true, rate: 3, ..args() }, LoadArgs { precision: Unit::S, ..args() }] {
            let requests = requests(&args, &[1, 1000, 7]);
            let text: String = requests.iter().map(|(_, text)| text.as_str()).collect();
            let mut times = HashSet::new();
            let mut series = HashSet::new();
            for (index, line) in text.lines().enumerate() {
                let parts: Vec<_> = line.split(' ').collect();
                assert_eq!(parts.len(), 3, "{line}");
                assert!(parts[1].ends_with(&format!(",n={}i", 95 + index)), "{line}");
                assert!(times.insert(parts[2].parse::<u64>().unwrap()), "{line}");
                assert_eq!((parts[0].matches('=').count(), parts[1].matches('=').count()), (5, 4));
                series.insert(parts[0]);
            }
            assert_eq!((times.len(), series.len()), (1008, 90));
        }
    }

    #[test]
    fn all_types_are_written_on_request() {
        let text = &requests(&LoadArgs { all_types: true, ..args() }, &[300])[0].1;
        let line = text.lines().next().unwrap();
        assert!(line.contains(",usage_idle=100.00,busy=false,state=\"load 0 %\",n=95i "), "{line}");
        assert!(text.contains("busy=true") && text.lines().count() == 300, "{text}");
    }

    #[test]
    fn the_head_has_the_requested_parameters() {
        let args = LoadArgs {
            rp: Some("a&b".into()),
            consistency: Some("all".into()),
            username: Some("me".into()),
            password: "pw".into(),
            precision: Unit::Ms,
            ..args()
        };
        let target = &requests(&args, &[1])[0].0.target;
        assert_eq!(target, "/x/write?db=a%20b&precision=ms&rp=a%26b&consistency=all");
        let points = Points::new(&args, &LoadTarget::resolve(&args.url).unwrap());
        assert!(points.head.windows(34).any(|w| w == b"\r\nAuthorization: Basic bWU6cHc=\r\nC"));
    }
}
