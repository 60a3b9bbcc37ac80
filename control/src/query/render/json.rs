//! JSON documents, compact or with `pretty=true`: Go's `encoding/json` over InfluxDB's structs, plus a line end.

use std::io::Write;

use fluxgate_dataplane::http::go_json;

use super::part::{ResultPart, SeriesPart};
use super::pieces::Pieces;
use crate::influx::answer::{Message, Row};
use crate::influx::wire::as_json;

const INDENT: &[u8] = b"    ";

/// What InfluxDB writes in the place of a document with a value that JSON cannot hold, before that value.
const UNWRITABLE: &str = "json: error calling MarshalJSON for type httpd.Response: \
                          json: error calling MarshalJSON for type *query.Result: json: unsupported value: ";

/// Writes one document.
pub(super) fn document(out: &mut Pieces<'_>, parts: &[ResultPart<'_>], pretty: bool) {
    let series = parts.iter().flat_map(ResultPart::series).filter(|part| part.series.beyond_json);
    if let Some(value) = series.flat_map(|part| part.rows).flat_map(Row::values).find(|value| as_json::is_beyond(value))
    {
        out.buf.extend_from_slice([UNWRITABLE, value, "\n"].concat().as_bytes());
        return out.settle();
    }
    let mut json = Json { out, pretty, depth: 0, first: true };
    json.open(b'{');
    json.list("results", parts, Json::part);
    json.close(b'}');
    json.out.buf.push(b'\n');
    json.out.settle();
}

/// Places commas, line ends and indents. Empty fields are left out, as by `omitempty`.
struct Json<'p, 'h> {
    out: &'p mut Pieces<'h>,
    pretty: bool,
    depth: usize,
    /// The innermost object or array is still empty.
    first: bool,
}

impl Json<'_, '_> {
    fn part(&mut self, part: &ResultPart<'_>) {
        self.open(b'{');
        self.key("statement_id");
        write!(self.out.buf, "{}", part.statement_id).expect("memory takes everything");
        if part.series_count() > 0 {
            self.key("series");
            self.open(b'[');
            for part in part.series() {
                self.item();
                self.series(&part);
            }
            self.close(b']');
        }
        self.list("messages", part.messages, Self::message);
        self.mark(part.partial);
        if let Some(error) = part.error {
            self.field("error", error);
        }
        self.close(b'}');
    }

    fn message(&mut self, message: &Message) {
        self.open(b'{');
        self.field("level", &message.level);
        self.field("text", &message.text);
        self.close(b'}');
    }

    fn series(&mut self, part: &SeriesPart<'_>) {
        let series = part.series;
        self.open(b'{');
        if !series.name.is_empty() {
            self.field("name", &series.name);
        }
        if !series.tags.is_empty() {
            self.key("tags");
            self.open(b'{');
            series.tags.iter().for_each(|(key, value)| self.field(key, value));
            self.close(b'}');
        }
        self.list("columns", &series.columns, |json, column| {
            go_json::push_string(&mut json.out.buf, column.as_bytes())
        });
        self.list("values", part.rows, |json, row| {
            if json.pretty {
                json.open(b'[');
                for value in row.values() {
                    json.item();
                    json.out.buf.extend_from_slice(value.as_bytes());
                }
                json.close(b']');
            } else {
                json.out.buf.extend_from_slice(&row.0);
            }
            json.out.settle();
        });
        self.mark(part.partial);
        self.close(b'}');
    }

    fn mark(&mut self, partial: bool) {
        if partial {
            self.key("partial");
            self.out.buf.extend_from_slice(b"true");
        }
    }

    fn list<T>(&mut self, name: &str, elements: &[T], write: impl Fn(&mut Self, &T)) {
        if elements.is_empty() {
            return;
        }
        self.key(name);
        self.open(b'[');
        for element in elements {
            self.item();
            write(self, element);
        }
        self.close(b']');
    }

    fn field(&mut self, name: &str, text: &str) {
        self.key(name);
        go_json::push_string(&mut self.out.buf, text.as_bytes());
    }

    fn key(&mut self, name: &str) {
        self.item();
        go_json::push_string(&mut self.out.buf, name.as_bytes());
        self.out.buf.extend_from_slice(if self.pretty { b": " } else { b":" });
    }

    fn open(&mut self, bracket: u8) {
        self.out.buf.push(bracket);
        self.depth += 1;
        self.first = true;
    }

    fn close(&mut self, bracket: u8) {
        self.depth -= 1;
        if !self.first {
            self.line();
        }
        self.out.buf.push(bracket);
        self.first = false;
    }

    /// Called before each element of an array and each name of an object.
    #[inline]
    fn item(&mut self) {
        if !self.first {
            self.out.buf.push(b',');
        }
        self.first = false;
        self.line();
    }

    #[inline]
    fn line(&mut self) {
        if self.pretty {
            self.out.buf.push(b'\n');
            (0..self.depth).for_each(|_| self.out.buf.extend_from_slice(INDENT));
        }
    }
}
