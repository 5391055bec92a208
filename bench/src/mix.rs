//! Kinds of requests and their weights in a load.

use std::fmt;
use std::str::FromStr;

use crate::limits::MIX_WEIGHT_MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestKind {
    /// A node's heartbeat.
    Ping,
    /// The peers of a file, asked by a node that has asked before.
    GetPeers,
    /// Pieces that a leecher has gained.
    UpdatePieces,
    /// A new small file: a durable write.
    UploadFile,
    /// A login by password: a slow hash and a durable write.
    Login,
    /// The peers of a file, asked with a new key: each answer needs a new ticket.
    FirstGetPeers,
}

impl RequestKind {
    /// All kinds, in the order of their discriminants.
    pub(crate) const ALL: [RequestKind; 6] = [
        RequestKind::Ping,
        RequestKind::GetPeers,
        RequestKind::UpdatePieces,
        RequestKind::UploadFile,
        RequestKind::Login,
        RequestKind::FirstGetPeers,
    ];

    /// The kind's name in a mix, as typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RequestKind::Ping => "ping",
            RequestKind::GetPeers => "get_peers",
            RequestKind::UpdatePieces => "update_pieces",
            RequestKind::UploadFile => "upload_file",
            RequestKind::Login => "login",
            RequestKind::FirstGetPeers => "first_get_peers",
        }
    }
}

/// The weight of each kind of request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestMix {
    /// Indexed by the kind's discriminant.
    weights: [u32; RequestKind::ALL.len()],
}

impl RequestMix {
    /// A mix of one kind alone.
    pub(crate) fn only(kind: RequestKind) -> RequestMix {
        RequestMix { weights: RequestKind::ALL.map(|each| u32::from(each == kind)) }
    }

    /// Draws a kind at random by weight.
    pub(crate) fn draw_kind(&self, random: &mut fastrand::Rng) -> RequestKind {
        let mut remaining = random.u32(0..self.weights.iter().sum());
        for (kind, weight) in RequestKind::ALL.into_iter().zip(self.weights) {
            match remaining.checked_sub(weight) {
                None => return kind,
                Some(rest) => remaining = rest,
            }
        }
        // Not reached: the number drawn is below the sum of all weights.
        RequestKind::Ping
    }
}

impl fmt::Display for RequestMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = RequestKind::ALL.into_iter().zip(self.weights).filter(|(_, weight)| *weight > 0);
        let entries: Vec<String> = shown.map(|(kind, weight)| format!("{}={weight}", kind.name())).collect();
        f.write_str(&entries.join(","))
    }
}

/// Why a text is not a mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadMix(String);

impl fmt::Display for BadMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a mix is a list such as ping=50,get_peers=40,upload_file=10", self.0)
    }
}

impl std::error::Error for BadMix {}

impl FromStr for RequestMix {
    type Err = BadMix;

    fn from_str(text: &str) -> Result<RequestMix, BadMix> {
        let mut weights = [0; RequestKind::ALL.len()];
        for entry in text.split(',') {
            let (name, weight) =
                entry.split_once('=').ok_or_else(|| BadMix(format!("`{entry}` has no weight")))?;
            let kind = RequestKind::ALL.iter().position(|kind| kind.name() == name.trim());
            let kind = kind.ok_or_else(|| BadMix(format!("there is no request called `{name}`")))?;
            let weight = weight.trim().parse().ok().filter(|weight| *weight <= MIX_WEIGHT_MAX);
            weights[kind] = weight
                .ok_or_else(|| BadMix(format!("`{entry}` needs a weight from 0 to {MIX_WEIGHT_MAX}")))?;
        }
        if weights.iter().all(|weight| *weight == 0) {
            return Err(BadMix("all weights are 0".to_owned()));
        }
        Ok(RequestMix { weights })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_drawn_by_weight() {
        let mix: RequestMix = "ping=3,login=1".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let logins = (0..4_000).filter(|_| mix.draw_kind(&mut random) == RequestKind::Login).count();
        assert!((900..1_100).contains(&logins), "{logins}");
        assert_eq!(mix.to_string(), "ping=3,login=1");
        let only = RequestMix::only(RequestKind::UploadFile);
        assert!((0..100).all(|_| only.draw_kind(&mut random) == RequestKind::UploadFile));
    }

    #[test]
    fn invalid_mixes_are_refused() {
        for text in ["", "ping", "ping=x", "ping=0", "pong=1", "ping=-1"] {
            assert!(text.parse::<RequestMix>().unwrap_err().to_string().contains("such as"), "{text}");
        }
    }
}
