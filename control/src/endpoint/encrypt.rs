//! `GET /encrypt`: encrypts a text with the cipher of the configuration file. influx-proxy 2.5 calls the parameter
//! `text` instead of `msg`.

use super::params::UrlParams;
use super::{Action, AdminState, text};
use crate::cipher;

pub fn decide(_: &AdminState, params: UrlParams<'_>) -> Action {
    Action::Answer(text(200, &cipher::encrypt(params.any(&["msg", "text"]))))
}
