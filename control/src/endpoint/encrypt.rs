//! `GET /encrypt`: a text in the cipher of the configuration file. `text` is the name of `msg` in influx-proxy 2.5.

use super::params::UrlParams;
use super::{Action, AdminState, text};
use crate::cipher;

pub fn decide(_: &AdminState, params: UrlParams<'_>) -> Action {
    Action::Answer(text(200, &cipher::encrypt(params.any(&["msg", "text"]))))
}
