//! Reads where line protocol is received in UDP packets.

use fluxgate_dataplane::limits;
use fluxgate_dataplane::one_line::one_line;
use fluxgate_dataplane::precision::Precision;
use fluxgate_dataplane::settings::UdpSettings;

use super::document::{KeyStep, path_text};
use super::file::File;
use super::problem::{Problem, below, problem};
use super::resolve::{address, text_or};

/// Each address, and where its points go.
pub(super) fn listeners(file: &File) -> Result<Vec<UdpSettings>, Problem> {
    let mut all: Vec<UdpSettings> = Vec::new();
    for (index, table) in file.udp.iter().flatten().enumerate() {
        let path = vec![KeyStep::Key("udp".to_owned()), KeyStep::Item(index)];
        let wrong = |name: &str, what: &str| {
            let path = below(&path, name);
            let text = format!("{} {what}", path_text(&path));
            Err(problem(path, text))
        };
        if index == limits::UDP_LISTENERS_MAX {
            let what = format!("{} is one too many; there may be {}", path_text(&path), limits::UDP_LISTENERS_MAX);
            return Err(problem(path, what));
        }
        let Some(bind) = table.bind.as_deref().filter(|bind| !bind.is_empty()) else {
            let what = format!("{}.bind is missing or empty; it is the address to receive on", path_text(&path));
            return Err(problem(path, what));
        };
        let bind = address(&below(&path, "bind"), bind)?;
        if bind.port() == 0 {
            return wrong("bind", "needs a port that is not 0");
        }
        if all.iter().any(|other| other.bind == bind) {
            return wrong("bind", "is there twice");
        }
        let (db, rp) = (text_or(&table.database, "udp"), text_or(&table.retention_policy, ""));
        for (name, text) in [("database", &db), ("retention_policy", &rp)] {
            if text.len() > limits::NAME_BYTES_MAX {
                return wrong(name, &format!("must have at most {} bytes", limits::NAME_BYTES_MAX));
            }
        }
        if file.db_list.as_ref().is_some_and(|names| !names.is_empty() && !names.contains(&db)) {
            return wrong("database", "must be in db_list, or its points are refused");
        }
        let Some(precision) = Precision::from_param(text_or(&table.precision, "n").as_bytes()) else {
            return wrong("precision", "must be n, u, ms, s, m or h");
        };
        let read_buffer = table.read_buffer.filter(|&bytes| bytes > 0).map(|bytes| bytes as usize);
        let sizes = limits::UDP_READ_BUFFER_MIN..=limits::UDP_READ_BUFFER_MAX;
        if read_buffer.is_some_and(|bytes| !sizes.contains(&bytes)) {
            return wrong("read_buffer", &format!("must be from {} to {}", sizes.start(), sizes.end()));
        }
        all.push(UdpSettings { bind, db, rp, precision, read_buffer });
    }
    Ok(all)
}

/// UDP has no user.
pub(super) fn warning(udp: &UdpSettings) -> String {
    format!(
        "udp {} is all addresses, and UDP has no user: everybody who reaches this machine may write to database {}",
        udp.bind,
        one_line(&udp.db)
    )
}
