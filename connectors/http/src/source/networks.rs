//! [`Networks`]: which proxies are believed, hence who the client is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::HeaderMap;

/// The most proxies in a row that are followed: a header of more is not one of ours.
const MAX_HOPS: usize = 32;

/// Addresses that are trusted.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    networks: Vec<(IpAddr, u8)>,
    unix: bool,
}

impl Networks {
    /// Reads `10.0.0.0/8`, `::1`, `unix`. The error is the index of what is none of them, and why.
    pub(super) fn parse(list: &[String]) -> Result<Networks, (usize, String)> {
        let mut networks = Networks::default();
        for (at, entry) in list.iter().enumerate() {
            if entry == "unix" {
                networks.unix = true;
                continue;
            }
            let refused =
                || (at, format!("`{entry}` is not an address, a network such as `10.0.0.0/8`, or `unix`"));
            let (address, bits) = entry.split_once('/').map_or((&**entry, None), |(a, b)| (a, Some(b)));
            let address: IpAddr = address.parse().map_err(|_| refused())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.map_or(Ok(most), str::parse::<u8>).map_err(|_| refused())?;
            if bits > most {
                return Err(refused());
            }
            networks.networks.push((masked(address, bits), bits));
        }
        Ok(networks)
    }

    /// Whether an address is in one of them.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|&(network, bits)| {
            network.is_ipv4() == address.is_ipv4() && masked(address, bits) == network
        })
    }

    /// Who the client is: the nearest that no trusted proxy speaks for. `None`: it came by the Unix socket, and nobody
    /// said for whom.
    pub(super) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.map(|peer| peer.to_canonical());
        if !client.map_or(self.unix, |peer| self.has(peer)) {
            return client;
        }
        let values = headers.get_all("x-forwarded-for").iter().rev().filter_map(|value| value.to_str().ok());
        for hop in values.flat_map(|value| value.rsplit(',')).take(MAX_HOPS) {
            // What is not an address was not written by a proxy of ours.
            let Some(address) = address_of(hop.trim()) else { break };
            client = Some(address);
            if !self.has(address) {
                break;
            }
        }
        client
    }
}

/// An address, with or without a port.
fn address_of(text: &str) -> Option<IpAddr> {
    let address =
        text.parse().ok().or_else(|| text.parse().ok().map(|with_port: std::net::SocketAddr| with_port.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

/// The address with all but its first bits 0.
pub(super) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &[&str], peer: Option<&str>, forwarded: &[&str]) -> Option<String> {
        let list: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        let peer = peer.map(|peer| peer.parse().unwrap());
        Networks::parse(&list).unwrap().client(peer, &headers).map(|address| address.to_string())
    }

    #[test]
    fn nobody_but_a_trusted_proxy_says_who_the_client_is() {
        let proxies = ["10.0.0.0/8", "fd00::/8", "::1"];
        for (peer, forwarded, expected) in [
            ("1.2.3.4", &["9.9.9.9"][..], "1.2.3.4"),
            ("10.1.2.3", &["9.9.9.9"], "9.9.9.9"),
            // what the client wrote itself stands on the left
            ("10.1.2.3", &["6.6.6.6, 9.9.9.9"], "9.9.9.9"),
            ("10.1.2.3", &["6.6.6.6", "9.9.9.9, 10.0.0.7"], "9.9.9.9"),
            ("10.1.2.3", &["10.0.0.9, 10.0.0.7"], "10.0.0.9"),
            ("10.1.2.3", &["9.9.9.9, garbage"], "10.1.2.3"),
            ("10.1.2.3", &["9.9.9.9:4711"], "9.9.9.9"),
            ("fd00::7", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("::ffff:10.1.2.3", &["9.9.9.9"], "9.9.9.9"),
            ("10.1.2.3", &[], "10.1.2.3"),
        ] {
            assert_eq!(
                client(&proxies, Some(peer), forwarded).as_deref(),
                Some(expected),
                "{peer} {forwarded:?}"
            );
        }
        assert_eq!(client(&["unix"], None, &["9.9.9.9"]).as_deref(), Some("9.9.9.9"));
        assert_eq!(client(&[], None, &["9.9.9.9"]), None);
    }

    #[test]
    fn what_is_no_network_is_named() {
        for wrong in ["10.0.0.0/33", "10.0.0", "::1/129", "x", "10.0.0.0/-1"] {
            assert_eq!(Networks::parse(&["::1".into(), wrong.into()]).unwrap_err().0, 1, "{wrong}");
        }
        assert_eq!(masked("1.2.3.4".parse().unwrap(), 24).to_string(), "1.2.3.0");
        assert_eq!(masked("1.2.3.4".parse().unwrap(), 0).to_string(), "0.0.0.0");
        assert_eq!(masked("2001:db8:1:2::3".parse().unwrap(), 48).to_string(), "2001:db8:1::");
    }
}
