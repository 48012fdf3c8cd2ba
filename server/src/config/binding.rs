//! Who can reach the port, and whether that is all right with how the server is set up.

use std::net::SocketAddr;

/// Whoever can reach the address would be let in without a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} can be reached from other hosts, and without tokens whoever reaches it may read every source and publish any \
     object file; give it tokens, listen on loopback (127.0.0.1 or [::1]), or say --insecure-no-tokens"
)]
pub struct OpenToAll(SocketAddr);

/// Whether that may be listened on: without tokens only loopback, unless the user said in so many words that it shall be open.
///
/// # Errors
/// [`OpenToAll`] if not.
pub fn check_binding(listen: SocketAddr, has_tokens: bool, insecure: bool) -> Result<(), OpenToAll> {
    if is_loopback(listen) || has_tokens || insecure { Ok(()) } else { Err(OpenToAll(listen)) }
}

/// What to warn of when the server goes up.
pub(super) fn warning(listen: SocketAddr, has_tokens: bool, protected: bool) -> Option<&'static str> {
    match (is_loopback(listen), has_tokens, protected) {
        (true, ..) => None,
        (false, false, _) => Some(
            "whoever reaches the port may read every source and publish any object file: there are no tokens",
        ),
        (false, true, false) => Some(
            "tokens and sources cross the network in the clear: set --tls-cert and --tls-key, or put a proxy that \
             speaks TLS before it and say --behind-proxy",
        ),
        (false, true, true) => None,
    }
}

fn is_loopback(listen: SocketAddr) -> bool {
    listen.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: [&str; 4] = ["127.0.0.1:0", "127.9.9.9:80", "[::1]:7733", "[::ffff:127.0.0.1]:1"];
    const FAR: [&str; 5] =
        ["0.0.0.0:7733", "[::]:7733", "192.168.1.1:80", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"];

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn beyond_loopback_it_takes_tokens_or_the_words() {
        for near in NEAR {
            assert_eq!(check_binding(at(near), false, false), Ok(()), "{near}");
        }
        for far in FAR {
            assert_eq!(check_binding(at(far), false, false), Err(OpenToAll(at(far))));
            assert_eq!(check_binding(at(far), true, false), Ok(()), "{far}");
            assert_eq!(check_binding(at(far), false, true), Ok(()), "{far}");
        }
    }

    #[test]
    fn an_open_port_and_a_token_in_the_clear_are_warned_of() {
        for (listen, has_tokens, protected, says) in [
            (NEAR[0], false, false, None),
            (NEAR[0], true, false, None),
            (FAR[0], false, false, Some("there are no tokens")),
            (FAR[0], false, true, Some("there are no tokens")),
            (FAR[0], true, false, Some("in the clear")),
            (FAR[0], true, true, None),
        ] {
            let said = warning(at(listen), has_tokens, protected);
            assert_eq!(said.is_some(), says.is_some(), "{said:?}");
            assert!(said.unwrap_or_default().contains(says.unwrap_or_default()), "{said:?}");
        }
    }
}
