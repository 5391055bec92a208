//! This node as a peer: its key, and its engine, which starts when it is first needed.
//!
//! Always true: a process has at most one engine. Its port is kept on the disk, so that the next process
//! listens on the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};

use engine::Engine;
use engine::config::EngineConfig;
use engine::error::StartError;
use engine::lock::lock;
use engine::proto::ticket::{PeerKey, SecretKey, TrackerKey};

use crate::clock;
use crate::exit::ClientFault;
use crate::node::disk::state_dir::StateDir;
use crate::node::tracker_time::{ToldTime, tracker_time};
use crate::plan::NodePlan;

/// Which tickets are valid.
#[derive(Clone, Debug)]
pub(crate) struct TrackerTrust {
    /// The key under which they are signed.
    pub(crate) key: TrackerKey,
    /// What a tracker told of its time of day; `None` before the first answer.
    pub(crate) told_time: Option<ToldTime>,
}

impl TrackerTrust {
    fn apply(&self, engine: &Engine) {
        engine.set_trust(self.key, tracker_time(self.told_time.as_ref(), &clock::read_clocks()));
    }
}

/// This node as a peer.
pub(crate) struct LocalPeer {
    plan: NodePlan,
    state_dir: Arc<StateDir>,
    secret: SecretKey,
    slot: Mutex<EngineSlot>,
}

#[derive(Default)]
struct EngineSlot {
    engine: Option<Engine>,
    trust: Option<TrackerTrust>,
}

impl LocalPeer {
    /// A peer whose engine has not started.
    ///
    /// # Errors
    /// The key can be neither read nor made.
    pub(crate) fn new(plan: NodePlan, state: Arc<StateDir>) -> Result<LocalPeer, ClientFault> {
        let secret = state.secret_key()?;
        Ok(LocalPeer { plan, state_dir: state, secret, slot: Mutex::default() })
    }

    /// The node's public key.
    pub(crate) fn key(&self) -> PeerKey {
        self.secret.peer_key()
    }

    /// Limit of received bytes a second.
    pub(crate) fn limit_down(&self) -> Option<NonZeroU64> {
        self.plan.limit_down
    }

    /// The engine. Starts it if needed.
    ///
    /// # Errors
    /// It cannot start, or its port cannot be kept.
    pub(crate) fn engine(&self) -> Result<Engine, ClientFault> {
        let mut running = lock(&self.slot);
        if let Some(engine) = &running.engine {
            return Ok(engine.clone());
        }
        let engine = self.start_engine()?;
        if let Some(trust) = &running.trust {
            trust.apply(&engine);
        }
        // Without this the engine would go on listening, and the next call would start a second one.
        self.state_dir.save_port(engine.listen_address().port()).inspect_err(|_| engine.stop())?;
        running.engine = Some(engine.clone());
        Ok(engine)
    }

    /// The engine, if it has started.
    pub(crate) fn started_engine(&self) -> Option<Engine> {
        lock(&self.slot).engine.clone()
    }

    /// Sets which tickets the engine accepts, now or when it starts.
    pub(crate) fn set_trust(&self, trust: TrackerTrust) {
        let mut running = lock(&self.slot);
        if let Some(engine) = &running.engine {
            trust.apply(engine);
        }
        running.trust = Some(trust);
    }

    /// Makes all tickets invalid until [`LocalPeer::set_trust`] is called again: no new peer is served.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub(crate) fn revoke_trust(&self) -> Result<(), ClientFault> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|error| ClientFault::no_random(&error))?;
        // The secret half is dropped with this call, so that no ticket can be signed under this key.
        self.set_trust(TrackerTrust { key: SecretKey::from_seed(&seed).tracker_key(), told_time: None });
        Ok(())
    }

    /// The address that trackers give to peers; `local` is this machine's address on the connection to the
    /// tracker. `None` as long as the engine has not started.
    pub(crate) fn announced_address(&self, local: IpAddr) -> Option<SocketAddr> {
        let listen = self.started_engine()?.listen_address();
        let bound = Some(listen.ip()).filter(|ip| !ip.is_unspecified());
        Some(SocketAddr::new(self.plan.advertise.or(bound).unwrap_or(local), listen.port()))
    }

    /// Stops the engine, if it has started.
    pub(crate) fn stop(&self) {
        let engine = lock(&self.slot).engine.take();
        if let Some(engine) = engine {
            engine.stop();
        }
    }

    fn start_engine(&self) -> Result<Engine, ClientFault> {
        if let Some(listen) = self.plan.listen {
            return Ok(self.start_engine_at(listen.ip)?);
        }
        Ok(start_dual_stack(|ip| self.start_engine_at(ip))?)
    }

    fn start_engine_at(&self, ip: IpAddr) -> Result<Engine, StartError> {
        let typed = self.plan.listen.and_then(|listen| listen.port);
        let kept = if typed.is_none() { self.state_dir.port() } else { None };
        if let Some(port) = kept {
            match Engine::start(self.engine_config(SocketAddr::new(ip, port))) {
                Err(StartError::Listen { source, .. }) if !lacks_ipv6(&source) => {
                    tracing::info!("port {port} is taken; another one is used");
                }
                started => return started,
            }
        }
        Engine::start(self.engine_config(SocketAddr::new(ip, typed.unwrap_or(0))))
    }

    fn engine_config(&self, listen: SocketAddr) -> EngineConfig {
        EngineConfig {
            listen,
            io: self.plan.io,
            zero_copy: self.plan.zero_copy,
            hash: self.plan.hash,
            workers: None,
            limit_up: self.plan.limit_up,
            limit_down: self.plan.limit_down,
            secret: self.secret.clone(),
            scratch_dir: Some(self.state_dir.path().to_owned()),
        }
    }
}

/// Starts on all addresses of IPv6 and IPv4, or of the only family that there is.
fn start_dual_stack<T>(start_at: impl Fn(IpAddr) -> Result<T, StartError>) -> Result<T, StartError> {
    match start_at(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
        Err(StartError::Listen { source, .. }) if lacks_ipv6(&source) => {
            start_at(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
        }
        started => started,
    }
}

/// Whether the machine has no IPv6.
fn lacks_ipv6(error: &std::io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_ipv6_listens_on_ipv4_and_a_taken_port_is_no_reason_to() {
        let refusing = |errno: rustix::io::Errno| {
            start_dual_stack(move |ip| match ip {
                IpAddr::V6(_) => Err(StartError::Listen { address: (ip, 0).into(), source: errno.into() }),
                IpAddr::V4(_) => Ok(ip),
            })
        };
        for without in [rustix::io::Errno::AFNOSUPPORT, rustix::io::Errno::ADDRNOTAVAIL] {
            assert_eq!(refusing(without).unwrap(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        }
        assert!(refusing(rustix::io::Errno::ADDRINUSE).is_err());
        assert_eq!(start_dual_stack(Ok).unwrap(), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    }
}
