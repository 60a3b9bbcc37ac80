//! Reads the circles of a file into a [`Topology`]: names that are unique and usable as file names, urls, and decrypted
//! credentials.

use std::collections::HashSet;
use std::net::Ipv6Addr;

use fluxgate_control::cipher::{self, Key};
use fluxgate_control::migration::Removed;
use fluxgate_dataplane::limits;
use fluxgate_dataplane::topology::{Backend, BackendId, Topology};

use super::document::{KeyStep, path_text};
use super::file::{self, File};
use super::problem::{Problem, below, key, problem};
use crate::tls;

pub(super) fn topology(file: &File, cipher_key: Key) -> Result<Topology, Problem> {
    let mut topology = Topology::default();
    let mut names = HashSet::new();
    for (circle, table) in file.circles.iter().flatten().enumerate() {
        let path = vec![KeyStep::Key("circles".to_owned()), KeyStep::Item(circle)];
        if circle == limits::CIRCLES_MAX {
            let what = format!("{} is one too many; there may be {}", path_text(&path), limits::CIRCLES_MAX);
            return Err(problem(path, what));
        }
        let name = table.name.clone().unwrap_or_default();
        let tables = table.backends.as_deref().unwrap_or_default();
        if tables.is_empty() {
            let what = format!("{} has no backends; a circle needs at least one", path_text(&path));
            return Err(problem(below_if(table.backends.is_some(), path, "backends"), what));
        }
        let mut backends: Vec<Backend> = Vec::with_capacity(tables.len());
        for (index, table) in tables.iter().enumerate() {
            let mut path = path.clone();
            path.extend([KeyStep::Key("backends".to_owned()), KeyStep::Item(index)]);
            let backend = backend(file, table, cipher_key, &path)?;
            if !names.insert(backend.name.clone()) {
                let what = format!(
                    "{} is \"{}\", which another backend has too; names are unique over all circles",
                    path_text(&below(&path, "name")),
                    backend.name
                );
                return Err(problem(below(&path, "name"), what));
            }
            if topology.backends.len() + backends.len() == limits::BACKENDS_MAX {
                let what = format!("{} is one too many; there may be {}", path_text(&path), limits::BACKENDS_MAX);
                return Err(problem(path, what));
            }
            backends.push(backend);
        }
        if backends.iter().all(|backend| backend.leaving) {
            let what =
                format!("every backend of {} is leaving; a circle needs at least one that stays", path_text(&path));
            return Err(problem(below(&path, "backends"), what));
        }
        topology.add_circle(name, backends);
    }
    if topology.circles.is_empty() {
        let path = if file.circles.is_some() { key("circles") } else { Vec::new() };
        return Err(problem(path, "circles is missing or empty; fluxgate needs at least one circle with one backend"));
    }
    Ok(topology)
}

/// Circles without a name, which influx-proxy takes. They are told apart by their place.
pub(super) fn unnamed(file: &File) -> Vec<Problem> {
    let circles = file.circles.iter().flatten().enumerate();
    let unnamed = circles.filter(|(_, circle)| circle.name.as_deref().unwrap_or_default().is_empty());
    let warning = |(index, circle): (usize, &file::Circle)| {
        let path = vec![KeyStep::Key("circles".to_owned()), KeyStep::Item(index)];
        let what = format!("{} has no name, by which /health and the log could call it", path_text(&path));
        problem(below_if(circle.name.is_some(), path, "name"), what)
    };
    unnamed.map(warning).collect()
}

fn backend(file: &File, table: &file::Backend, cipher_key: Key, path: &[KeyStep]) -> Result<Backend, Problem> {
    let name = required(&table.name, path, "name")?;
    if name.len() > limits::BACKEND_NAME_BYTES_MAX || name == "." || name == ".." || name.contains(['/', '\0']) {
        let what = format!(
            "{} must be usable as a file name: at most {} bytes, without \"/\", and neither \".\" nor \"..\"",
            path_text(&below(path, "name")),
            limits::BACKEND_NAME_BYTES_MAX
        );
        return Err(problem(below(path, "name"), what));
    }
    let url = url(&table.url, path)?;
    if file.hash_key.as_deref() == Some("url") && table.url.as_ref() != Some(&url) {
        let path = below(path, "url");
        let what = format!("{} decides where data lies (hash_key): write it exactly as {url}", path_text(&path));
        return Err(problem(path, what));
    }
    let auth_secure = file.auth_secure;
    if let (Some(all), Some(own)) = (auth_secure, table.auth_encrypt)
        && all != own
    {
        let path = below(path, "auth_encrypt");
        let what = format!("{} is {own}, but auth_secure says {all} for the whole file", path_text(&path));
        return Err(problem(path, what));
    }
    let encrypted = auth_secure.or(table.auth_encrypt).unwrap_or(false);
    Ok(Backend {
        username: secret(&table.username, encrypted, cipher_key, below(path, "username"))?,
        password: secret(&table.password, encrypted, cipher_key, below(path, "password"))?,
        write_only: table.write_only.unwrap_or(false),
        catalog: table.catalog,
        leaving: table.leaving.unwrap_or(false),
        ..Backend::new(name, url)
    })
}

/// The backends that have left the circles.
pub(super) fn former(file: &File, encrypted: bool, cipher_key: Key) -> Result<Vec<Removed>, Problem> {
    let read = |(index, table): (usize, &file::FormerBackend)| {
        let path = vec![KeyStep::Key("former_backends".to_owned()), KeyStep::Item(index)];
        if index == limits::BACKENDS_MAX {
            let what = format!("{} is one too many; there may be {}", path_text(&path), limits::BACKENDS_MAX);
            return Err(problem(path, what));
        }
        Ok(Removed {
            name: required(&table.name, &path, "name")?,
            url: url(&table.url, &path)?,
            username: secret(&table.username, encrypted, cipher_key, below(&path, "username"))?,
            password: secret(&table.password, encrypted, cipher_key, below(&path, "password"))?,
        })
    };
    file.former_backends.iter().flatten().enumerate().map(read).collect()
}

fn url(value: &Option<String>, path: &[KeyStep]) -> Result<String, Problem> {
    let url = required(value, path, "url")?;
    plain_url(&url).map_err(|why| {
        let path = below(path, "url");
        let what = format!("{} {why}", path_text(&path));
        problem(path, what)
    })
}

/// Accepts `http://host`, `http://host:port` and the same with `https`, the scheme in any case, and a slash at the end.
/// Gives it in lower case without that slash. An error does not repeat the text, which may hold a password.
fn plain_url(url: &str) -> Result<String, &'static str> {
    let form = "must be http://host:port or https://host:port, with nothing behind the port";
    let (scheme, rest) = url.split_once("://").ok_or(form)?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(form);
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('/') && !authority.contains('@') {
        return Err(
            "has a path behind the port, which is not supported: write http://host:port or https://host:port, \
                    and let what stands there forward /write, /query and /ping",
        );
    }
    let url = format!("{scheme}://{authority}");
    if authority.contains('@') {
        return Err(
            "must be http://host:port or https://host:port; user and password belong in the keys username and password",
        );
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().map(|_| "v6").map_err(|_| form)?,
        None => host,
    };
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if host.is_empty() || !host.bytes().all(in_name) {
        return Err(form);
    }
    if tls::is_https(&url) && rustls::pki_types::ServerName::try_from(host).is_err() && host != "v6" {
        return Err("has a host name that cannot be in a certificate");
    }
    match port.map(str::parse::<u16>) {
        Some(Ok(0) | Err(_)) => Err("must have a port from 1 to 65535"),
        _ => Ok(url),
    }
}

/// Backends with https whose certificates are not verified.
pub(super) fn unverified(file: &File, topology: &Topology) -> Vec<BackendId> {
    let tables = file.circles.iter().flatten().flat_map(|circle| circle.backends.iter().flatten());
    let skip = |(table, backend): &(&file::Backend, &Backend)| {
        table.insecure_skip_verify == Some(true) && tls::is_https(&backend.url)
    };
    tables.zip(&topology.backends).filter(skip).map(|(_, backend)| backend.id).collect()
}

/// A user name or password in plain text. No error shows it, encrypted or not.
pub(super) fn secret(
    value: &Option<String>,
    encrypted: bool,
    cipher_key: Key,
    path: Vec<KeyStep>,
) -> Result<String, Problem> {
    let value = value.as_deref().unwrap_or_default();
    if !encrypted {
        return Ok(value.to_owned());
    }
    let why = match cipher::decrypt_with(cipher_key, value).map(String::from_utf8) {
        Ok(Ok(plain)) => return Ok(plain),
        Ok(Err(_)) => "the decrypted bytes are not text".to_owned(),
        Err(e) => e.to_string(),
    };
    let what = format!("{} should be encrypted, but cannot be decrypted: {why}", path_text(&path));
    Err(problem(path, what))
}

fn required(value: &Option<String>, path: &[KeyStep], name: &str) -> Result<String, Problem> {
    match value {
        Some(value) if !value.is_empty() => Ok(value.clone()),
        _ => {
            let what = format!("{} has no {name}", path_text(path));
            Err(problem(below_if(value.is_some(), path.to_vec(), name), what))
        }
    }
}

/// The key below `path` if it is in the file, else `path` itself.
fn below_if(present: bool, path: Vec<KeyStep>, name: &str) -> Vec<KeyStep> {
    if present { below(&path, name) } else { path }
}
