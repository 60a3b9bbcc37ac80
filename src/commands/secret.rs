//! `fluxgate encrypt` and `fluxgate decrypt`: user names and passwords for a configuration file.

use std::io::{self, BufRead, Write};

use clap::Args;
use fluxgate_control::cipher::{self, CipherError, Key};

#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct TextArgs {
    /// The cipher_key of the configuration file, 16 bytes. Other users of this machine can see it.
    #[arg(long, value_name = "KEY", value_parser = cipher_key)]
    pub key: Option<Key>,

    /// The text, which other users of this machine can see. Without it, the first line of standard input.
    #[arg(allow_hyphen_values = true)]
    pub text: Option<String>,
}

fn cipher_key(text: &str) -> Result<Key, String> {
    Key::new(text).ok_or_else(|| format!("a key is 16 bytes long, not {}", text.len()))
}

impl TextArgs {
    /// `fluxgate encrypt`: one line with the cipher of the text.
    pub fn encrypt(&self, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", cipher::encrypt_with(self.key.unwrap_or_default(), self.text(input)?))
    }

    /// `fluxgate decrypt`: one line with the text of the cipher.
    pub fn decrypt(&self, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<Result<(), CipherError>> {
        match cipher::decrypt_with(self.key.unwrap_or_default(), self.text(input)?) {
            Ok(text) => {
                out.write_all(&text)?;
                writeln!(out)?;
                Ok(Ok(()))
            }
            Err(e) => Ok(Err(e)),
        }
    }

    fn text(&self, input: &mut dyn BufRead) -> io::Result<String> {
        if let Some(text) = &self.text {
            return Ok(text.clone());
        }
        let mut line = String::new();
        input.read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encrypt_and_decrypt_take_an_argument_or_a_line() {
        let mut out = Vec::new();
        let of_stdin = TextArgs::default();
        of_stdin.encrypt(&mut &b"admin\nmore\n"[..], &mut out).expect("memory takes all");
        TextArgs { text: Some("admin".to_owned()), key: None }
            .encrypt(&mut &b""[..], &mut out)
            .expect("memory takes all");
        assert_eq!(out, b"YgvEyuPZlDYAH8sGDkC!Ag\nYgvEyuPZlDYAH8sGDkC!Ag\n");
        let decrypted = of_stdin.decrypt(&mut &out.clone()[..], &mut out);
        assert_eq!(decrypted.expect("memory takes all"), Ok(()));
        assert!(out.ends_with(b"\nadmin\n"));
        let bad = TextArgs { text: Some("abc".to_owned()), key: None }.decrypt(&mut &b""[..], &mut out);
        assert_eq!(bad.expect("memory takes all"), Err(CipherError::NotFullBlocks));
    }
}
