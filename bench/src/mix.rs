//! Kinds of requests, and how often each is sent.

use std::fmt;
use std::str::FromStr;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The sign of life of a node.
    Ping,
    /// Who has a file, asked again by a node that asked a moment ago.
    GetPeers,
    /// What a leecher has gained.
    UpdatePieces,
    /// A new small file: a durable write.
    Upload,
    /// A session with a password: a slow hash and a durable write.
    Login,
    /// Who has a file, asked by a node for the first time: another key, and so another ticket, each time.
    FirstPeers,
}

impl Kind {
    /// All, in the order of their numbers.
    pub(crate) const ALL: [Kind; 6] =
        [Kind::Ping, Kind::GetPeers, Kind::UpdatePieces, Kind::Upload, Kind::Login, Kind::FirstPeers];

    /// As a mix names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Ping => "ping",
            Kind::GetPeers => "get_peers",
            Kind::UpdatePieces => "update_pieces",
            Kind::Upload => "upload_file",
            Kind::Login => "login",
            Kind::FirstPeers => "first_get_peers",
        }
    }
}

/// How many parts of all requests each kind has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mix {
    /// By number of kind.
    parts: [u32; Kind::ALL.len()],
}

impl Mix {
    /// One kind alone.
    pub(crate) fn only(kind: Kind) -> Mix {
        Mix { parts: Kind::ALL.map(|each| u32::from(each == kind)) }
    }

    /// The kind that a random number falls to.
    pub(crate) fn pick(&self, random: &mut fastrand::Rng) -> Kind {
        let mut left = random.u32(0..self.parts.iter().sum());
        for (kind, part) in Kind::ALL.into_iter().zip(self.parts) {
            match left.checked_sub(part) {
                None => return kind,
                Some(rest) => left = rest,
            }
        }
        Kind::Ping
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Kind::ALL.into_iter().zip(self.parts).filter(|(_, part)| *part > 0);
        let words: Vec<String> = shown.map(|(kind, part)| format!("{}={part}", kind.name())).collect();
        f.write_str(&words.join(","))
    }
}

/// Why a text is no mix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadMix(String);

impl fmt::Display for BadMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: a mix is a list such as ping=50,get_peers=40,upload_file=10", self.0)
    }
}

impl std::error::Error for BadMix {}

/// Parts of one kind, at most: sums of all kinds stay small numbers.
const PART_MAX: u32 = 1_000_000;

impl FromStr for Mix {
    type Err = BadMix;

    fn from_str(text: &str) -> Result<Mix, BadMix> {
        let mut parts = [0; Kind::ALL.len()];
        for word in text.split(',') {
            let (name, part) =
                word.split_once('=').ok_or_else(|| BadMix(format!("`{word}` has no number")))?;
            let kind = Kind::ALL.iter().position(|kind| kind.name() == name.trim());
            let kind = kind.ok_or_else(|| BadMix(format!("there are no requests called `{name}`")))?;
            let part = part.trim().parse().ok().filter(|part| *part <= PART_MAX);
            parts[kind] = part.ok_or_else(|| BadMix(format!("`{word}` has no number up to {PART_MAX}")))?;
        }
        if parts.iter().all(|part| *part == 0) {
            return Err(BadMix("nothing would be sent".to_owned()));
        }
        Ok(Mix { parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_as_often_as_the_mix_says() {
        let mix: Mix = "ping=3,login=1".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let logins = (0..4_000).filter(|_| mix.pick(&mut random) == Kind::Login).count();
        assert!((900..1_100).contains(&logins), "{logins}");
        assert_eq!(mix.to_string(), "ping=3,login=1");
        let only = Mix::only(Kind::Upload);
        assert!((0..100).all(|_| only.pick(&mut random) == Kind::Upload));
    }

    #[test]
    fn what_is_no_mix_is_told() {
        for text in ["", "ping", "ping=x", "ping=0", "pong=1", "ping=-1"] {
            assert!(text.parse::<Mix>().unwrap_err().to_string().contains("such as"), "{text}");
        }
    }
}
