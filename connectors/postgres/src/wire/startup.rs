//! From a fresh socket to a session that is ready for commands: the startup message and the login.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use postgres_protocol::message::{backend, frontend};
use tokio::time::Instant;

use super::error::WireError;
use super::read::ReadHalf;
use crate::cursor::Cursor;
use crate::url::ChannelBinding;

/// Who logs in, and how.
#[derive(Clone, Copy)]
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) password: Option<&'a [u8]>,
    pub(super) channel_binding: ChannelBinding,
}

/// What a server says of itself once it has let us in.
#[derive(Clone, Debug, Default)]
pub(super) struct Greeting {
    /// The settings it reports, such as `server_version`.
    pub(super) parameters: Vec<(String, String)>,
    /// What a request to cancel must show: process and secret.
    pub(super) cancel_key: Option<(i32, i32)>,
}

/// A server reports some dozen settings; one that reports more than this is none.
const MAX_PARAMETERS: usize = 100;

const DOING: &str = "logging in";

/// Sends the startup message, proves who we are, and waits until the server is ready.
pub(super) fn start_up(
    channel: &mut ReadHalf,
    login: Login<'_>,
    parameters: &[(&str, &str)],
    deadline: Instant,
) -> Result<Greeting, WireError> {
    let mut message = BytesMut::new();
    frontend::startup_message(parameters.iter().copied(), &mut message).map_err(WireError::io(DOING))?;
    channel.transport.send_all(&message, deadline)?;
    Exchange { channel, login, deadline }.authenticate()?;

    let mut greeting = Greeting::default();
    loop {
        let (tag, body) = channel.receive(DOING, deadline)?;
        let mut body = Cursor(body);
        match tag {
            backend::READY_FOR_QUERY_TAG => return Ok(greeting),
            backend::BACKEND_KEY_DATA_TAG => greeting.cancel_key = Some((body.i32()?, body.i32()?)),
            backend::PARAMETER_STATUS_TAG if greeting.parameters.len() < MAX_PARAMETERS => {
                greeting.parameters.push((body.text()?.to_owned(), body.text()?.to_owned()));
            }
            tag => return Err(WireError::unexpected(tag, DOING)),
        }
    }
}

/// What the server demands at each turn of the login.
enum Demand {
    Nothing,
    Password,
    Md5 { salt: [u8; 4] },
    Scram { plain: bool, bound: bool },
    Continue(Vec<u8>),
    Final(Vec<u8>),
}

/// The conversation that ends with the server's trust.
struct Exchange<'a> {
    channel: &'a mut ReadHalf,
    login: Login<'a>,
    deadline: Instant,
}

impl<'a> Exchange<'a> {
    fn authenticate(&mut self) -> Result<(), WireError> {
        match self.demand()? {
            Demand::Nothing => return self.unbound(),
            Demand::Password => {
                self.unbound()?;
                let password = self.password()?;
                self.send(|out| frontend::password_message(password, out))?;
            }
            Demand::Md5 { salt } => {
                self.unbound()?;
                let hash = md5_hash(self.login.user.as_bytes(), self.password()?, salt);
                self.send(|out| frontend::password_message(hash.as_bytes(), out))?;
            }
            Demand::Scram { plain, bound } => self.scram(plain, bound)?,
            Demand::Continue(_) | Demand::Final(_) => return Err(out_of_turn()),
        }
        match self.demand()? {
            Demand::Nothing => Ok(()),
            _ => Err(out_of_turn()),
        }
    }

    fn scram(&mut self, plain_offered: bool, bound_offered: bool) -> Result<(), WireError> {
        let end_point = match self.login.channel_binding {
            ChannelBinding::Disable => None,
            ChannelBinding::Prefer | ChannelBinding::Require => self.channel.transport.end_point(),
        };
        let (binding, mechanism) = match (end_point, bound_offered) {
            (Some(hash), true) => {
                (sasl::ChannelBinding::tls_server_end_point(hash), sasl::SCRAM_SHA_256_PLUS)
            }
            // says that we could have, so that the server notices if somebody took it off its list
            (Some(_), false) => (sasl::ChannelBinding::unrequested(), sasl::SCRAM_SHA_256),
            (None, _) => (sasl::ChannelBinding::unsupported(), sasl::SCRAM_SHA_256),
        };
        if mechanism == sasl::SCRAM_SHA_256 {
            self.unbound()?;
            if !plain_offered {
                return Err(WireError::Login("the server offers no SCRAM-SHA-256".to_owned()));
            }
        }
        let refused = |error: std::io::Error| WireError::Login(error.to_string());
        let mut exchange = ScramSha256::new(self.password()?, binding);
        self.send(|out| frontend::sasl_initial_response(mechanism, exchange.message(), out))?;
        let Demand::Continue(challenge) = self.demand()? else { return Err(out_of_turn()) };
        exchange.update(&challenge).map_err(refused)?;
        self.send(|out| frontend::sasl_response(exchange.message(), out))?;
        let Demand::Final(proof) = self.demand()? else { return Err(out_of_turn()) };
        // the server, too, proves that it knows the password
        exchange.finish(&proof).map_err(refused)
    }

    /// Every way in that does not bind the channel passes here.
    fn unbound(&self) -> Result<(), WireError> {
        match self.login.channel_binding {
            ChannelBinding::Require => {
                let why = "`channel_binding=require`, but this login is not bound to a TLS channel";
                Err(WireError::Login(why.to_owned()))
            }
            ChannelBinding::Disable | ChannelBinding::Prefer => Ok(()),
        }
    }

    fn password(&self) -> Result<&'a [u8], WireError> {
        self.login
            .password
            .ok_or_else(|| WireError::Login("the server asks for a password; put one into `url`".to_owned()))
    }

    fn demand(&mut self) -> Result<Demand, WireError> {
        let (tag, body) = self.channel.receive(DOING, self.deadline)?;
        if tag != backend::AUTHENTICATION_TAG {
            return Err(WireError::unexpected(tag, DOING));
        }
        let mut body = Cursor(body);
        match body.i32()? {
            0 => Ok(Demand::Nothing),
            3 => Ok(Demand::Password),
            5 => Ok(Demand::Md5 { salt: body.array()? }),
            10 => {
                let (mut plain, mut bound) = (false, false);
                loop {
                    match body.text()? {
                        "" => return Ok(Demand::Scram { plain, bound }),
                        sasl::SCRAM_SHA_256 => plain = true,
                        sasl::SCRAM_SHA_256_PLUS => bound = true,
                        _ => {}
                    }
                }
            }
            11 => Ok(Demand::Continue(body.0.to_vec())),
            12 => Ok(Demand::Final(body.0.to_vec())),
            2 | 6..=9 => {
                let why =
                    "the server asks for GSSAPI, SSPI or Kerberos; allow `scram-sha-256` in its pg_hba.conf";
                Err(WireError::Login(why.to_owned()))
            }
            other => Err(WireError::malformed(format!("login method {other}"))),
        }
    }

    fn send(&self, write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Result<(), WireError> {
        let mut message = BytesMut::new();
        write(&mut message).map_err(WireError::io(DOING))?;
        self.channel.transport.send_all(&message, self.deadline)
    }
}

fn out_of_turn() -> WireError {
    WireError::malformed("a step of the login came out of turn")
}
