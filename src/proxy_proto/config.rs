//! What the conversations of one exit begin with.

use std::net::IpAddr;
use std::sync::Arc;

use super::Conversation;
use super::ftp::{Ftp, FtpConfig};
use super::http::{Http, HttpConfig};
use super::socks::{Socks, SocksConfig};
use super::telnet::{Telnet, TelnetConfig};
use crate::cli::plan::{Exit, ExitKind, Plan, Proxy};

/// Configuration of an exit's conversations.
pub enum ConversationConfig {
    /// SOCKS, of one version or both.
    Socks(Arc<SocksConfig>),
    /// HTTP.
    Http(Arc<HttpConfig>),
    /// Telnet.
    Telnet(TelnetConfig),
    /// FTP, of a proxy or of one server.
    Ftp(FtpConfig),
}

impl ConversationConfig {
    /// That of an exit; `banner_host` is the machine's name in prompts. `None`: the exit is no proxy.
    pub fn of(plan: &Plan, exit: &Exit, banner_host: &str) -> Option<ConversationConfig> {
        let banner_host = banner_host.to_owned();
        let proxy = match &exit.way {
            ExitKind::Proxy(proxy) => *proxy,
            ExitKind::Ftp(server) => {
                let server = Some(server.clone());
                return Some(ConversationConfig::Ftp(FtpConfig { server, banner_host }));
            }
            _ => return None,
        };
        let users_of = |version| plan.users(exit, version);
        Some(match proxy {
            Proxy::Socks | Proxy::Socks4 | Proxy::Socks5 => {
                ConversationConfig::Socks(Arc::new(SocksConfig {
                    versions: proxy,
                    users: users_of(Proxy::Socks5),
                    four_has_users: users_of(Proxy::Socks4).is_some(),
                }))
            }
            Proxy::Http => {
                let users = users_of(Proxy::Http);
                ConversationConfig::Http(Arc::new(HttpConfig { via: banner_host, users }))
            }
            Proxy::Telnet => ConversationConfig::Telnet(TelnetConfig { banner_host }),
            Proxy::Ftp => ConversationConfig::Ftp(FtpConfig { server: None, banner_host }),
        })
    }

    /// The protocol.
    pub fn proxy(&self) -> Proxy {
        match self {
            ConversationConfig::Socks(config) => config.versions,
            ConversationConfig::Http(_) => Proxy::Http,
            ConversationConfig::Telnet(_) => Proxy::Telnet,
            ConversationConfig::Ftp(_) => Proxy::Ftp,
        }
    }

    /// Whether clients have to say a password.
    pub fn asks_user(&self) -> bool {
        match self {
            ConversationConfig::Socks(config) => config.users.is_some(),
            ConversationConfig::Http(config) => config.users.is_some(),
            ConversationConfig::Telnet(_) | ConversationConfig::Ftp(_) => false,
        }
    }

    /// Begins the conversation with a new client.
    pub fn begin(&self, client: Option<IpAddr>) -> Box<dyn Conversation> {
        match self {
            ConversationConfig::Socks(config) => Box::new(Socks::new(Arc::clone(config))),
            ConversationConfig::Http(config) => Box::new(Http::new(Arc::clone(config))),
            ConversationConfig::Telnet(config) => Box::new(Telnet::new(config.clone())),
            ConversationConfig::Ftp(config) => Box::new(Ftp::new(config.clone(), client)),
        }
    }
}

/// Without the users.
impl std::fmt::Debug for ConversationConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ConversationConfig").field(&self.proxy()).finish()
    }
}
