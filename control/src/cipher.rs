//! influx-proxy's cipher for user names and passwords in a configuration file, and for `/encrypt` and `/decrypt`.
//!
//! AES-128 in CBC mode with one published key and no salt. It only hides a password from a casual look; it is here
//! because existing files use it. With a key of its own (`cipher_key`) a file hides its passwords from readers without
//! that key, but equal texts still have equal ciphers.
//!
//! Text form: base64 with `_` for 62 and `!` for 63, without `=`. Padding: zero bytes up to a multiple of 16, none when
//! the text already is one. Zero bytes at either end of a text are lost.

use aes::Aes128;
use base64::Engine;
use base64::alphabet::Alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};

/// Key and initial vector in one; also the value that `/decrypt` requires as its `key` parameter.
pub const KEY: &str = "consistentcipher";
const BLOCK_BYTES: usize = 16;

/// A key, which is the initial vector as well. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; BLOCK_BYTES]);

impl Key {
    /// None unless `text` is 16 bytes long.
    pub fn new(text: &str) -> Option<Self> {
        text.as_bytes().try_into().ok().map(Self)
    }
}

/// The published key, [`KEY`].
impl Default for Key {
    fn default() -> Self {
        Self::new(KEY).expect("16 bytes")
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

const SYMBOLS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_!";
/// Unused bits of the last symbol may have any value, as in influx-proxy.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &match Alphabet::new(SYMBOLS) {
        Ok(alphabet) => alphabet,
        Err(_) => panic!("64 distinct symbols"),
    },
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);

/// Why a text is not a cipher text. The texts are influx-proxy's, since `/decrypt` answers with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CipherError {
    /// Invalid base64, from this byte on.
    Base64 { at: usize },
    /// The bytes are not whole AES blocks.
    NotFullBlocks,
}

impl std::fmt::Display for CipherError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base64 { at } => write!(f, "illegal base64 data at input byte {at}"),
            Self::NotFullBlocks => f.write_str("crypto/cipher: input not full blocks"),
        }
    }
}

impl std::error::Error for CipherError {}

/// Encrypts any bytes with the published key; the empty text gives the empty text.
pub fn encrypt(text: impl AsRef<[u8]>) -> String {
    encrypt_with(Key::default(), text)
}

/// Decrypts with the published key. The result may not be UTF-8: any whole blocks decrypt to something.
pub fn decrypt(cipher: impl AsRef<[u8]>) -> Result<Vec<u8>, CipherError> {
    decrypt_with(Key::default(), cipher)
}

/// As [`encrypt`], with another key.
pub fn encrypt_with(Key(key): Key, text: impl AsRef<[u8]>) -> String {
    let mut blocks = text.as_ref().to_vec();
    let len = blocks.len().next_multiple_of(BLOCK_BYTES);
    blocks.resize(len, 0);
    cbc::Encryptor::<Aes128>::new(&key.into(), &key.into())
        .encrypt_padded_mut::<NoPadding>(&mut blocks, len)
        .expect("whole blocks need no padding");
    BASE64.encode(blocks)
}

/// As [`decrypt`], with another key. A wrong key gives other bytes, not an error.
pub fn decrypt_with(Key(key): Key, cipher: impl AsRef<[u8]>) -> Result<Vec<u8>, CipherError> {
    let cipher = cipher.as_ref();
    // Line ends are ignored, as in Go.
    let symbols: Vec<u8> = cipher.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    let foreign = |byte: &u8| !matches!(byte, b'\r' | b'\n') && !SYMBOLS.as_bytes().contains(byte);
    if let Some(at) = cipher.iter().position(foreign) {
        return Err(CipherError::Base64 { at });
    }
    // All symbols are valid: the only error left is a single last symbol.
    let mut blocks = BASE64.decode(&symbols).map_err(|_| CipherError::Base64 { at: cipher.len() - 1 })?;
    if blocks.len() % BLOCK_BYTES != 0 {
        return Err(CipherError::NotFullBlocks);
    }
    cbc::Decryptor::<Aes128>::new(&key.into(), &key.into())
        .decrypt_padded_mut::<NoPadding>(&mut blocks)
        .map_err(|_| CipherError::NotFullBlocks)?;
    let start = blocks.iter().position(|&byte| byte != 0).unwrap_or(blocks.len());
    let end = blocks.iter().rposition(|&byte| byte != 0).map_or(start, |last| last + 1);
    Ok(blocks[start..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the recorded file. Texts may be quoted and hold quotes, commas and line breaks; ciphers hold none of
    /// these.
    fn vectors() -> Vec<(String, String)> {
        let file = include_str!("../../tests/golden/encrypt.csv").replace("\r\n", "\n");
        let mut rows = Vec::new();
        let mut rest = file.strip_prefix("text,cipher\n").expect("a header");
        while !rest.is_empty() {
            let text;
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.replace("\"\"", "..").find('"').expect("a closing quote");
                text = quoted[..end].replace("\"\"", "\"");
                rest = quoted[end + 1..].strip_prefix(',').expect("a comma");
            } else {
                let (plain, after) = rest.split_once(',').expect("a comma");
                text = plain.to_owned();
                rest = after;
            }
            let (cipher, after) = rest.split_once('\n').expect("a line end");
            rows.push((text, cipher.to_owned()));
            rest = after;
        }
        rows
    }

    #[test]
    fn every_recorded_vector_both_ways() {
        let vectors = vectors();
        assert_eq!(vectors.len(), 32);
        for (text, cipher) in vectors {
            assert_eq!(encrypt(&text), cipher, "{text:?}");
            assert_eq!(decrypt(&cipher), Ok(text.into_bytes()), "{cipher}");
        }
    }

    #[test]
    fn only_the_same_key_decrypts_a_cipher() {
        let key = Key::new("sixteen bytes ok").expect("16 bytes");
        let cipher = encrypt_with(key, "admin");
        assert_ne!(cipher, encrypt("admin"));
        assert_eq!(decrypt_with(key, &cipher), Ok(b"admin".to_vec()));
        assert_ne!(decrypt(&cipher), Ok(b"admin".to_vec()));
        assert_eq!(["", "fifteen bytes..", "seventeen bytes.."].map(Key::new), [None, None, None]);
        assert_eq!(Key::new(KEY), Some(Key::default()));
        assert_eq!(format!("{key:?}"), "Key");
    }

    #[test]
    fn errors_are_worded_as_in_the_original() {
        for (cipher, want) in [
            ("YgvEyuPZlDYAH8sGDkC!A", "illegal base64 data at input byte 20"),
            ("YgvEyuPZlDYAH8sGDkC!AgA", "crypto/cipher: input not full blocks"),
            ("YgvEyuPZlDYAH8sGDkC!Ag==", "illegal base64 data at input byte 22"),
            ("YgvEyuPZlDYAH8sGDkC-Ag", "illegal base64 data at input byte 19"),
            ("中文", "illegal base64 data at input byte 0"),
            ("%", "illegal base64 data at input byte 0"),
            ("A", "illegal base64 data at input byte 0"),
            ("abc", "crypto/cipher: input not full blocks"),
        ] {
            assert_eq!(decrypt(cipher).expect_err(cipher).to_string(), want, "{cipher}");
        }
    }

    #[test]
    fn what_the_original_accepts_is_accepted() {
        for (cipher, want) in [
            ("YgvEyuPZlDYAH8sGDkC!Ah", &b"admin"[..]),
            ("YgvEyuPZ\r\nlDYAH8sGDkC!Ag\n", b"admin"),
            ("AAAAAAAAAAAAAAAAAAAAAA", b"\x07pG\xf2\xa3\xc0DY\xc2\xcbEm\xeao\x00\xa1"),
        ] {
            assert_eq!(decrypt(cipher).as_deref(), Ok(want), "{cipher}");
        }
        assert_eq!(decrypt(encrypt("nul\0")), Ok(b"nul".to_vec()), "zero bytes at the end do not come back");
        assert_eq!(decrypt(encrypt("a\0b")), Ok(b"a\0b".to_vec()));
        assert_eq!(decrypt(encrypt([0; 16])), Ok(vec![]));
    }
}
