//! What is outside of the agent and its disk: the clocks, the log directory, the web server that writes to it.

use std::io;

use super::clock::Clock;
use super::files::FileSystem;
use super::server::{Context, Server};
use super::swarm::Swarm;
use super::trace::Trace;

/// Of 256 calls, so many fail where reads fail at all.
const READ_ERROR_SHARE: u8 = 6;

/// Everything that the log files' seam reaches.
#[derive(Debug)]
pub(super) struct World {
    pub(super) clock: Clock,
    pub(super) files: FileSystem,
    pub(super) server: Server,
    pub(super) trace: Trace,
    pub(super) random: fastrand::Rng,
    /// At the so-manieth call from now the server acts.
    pub(super) act_in: Option<u32>,
    pub(super) short_reads: bool,
    pub(super) read_errors: bool,
    /// No read fails now, whatever else does.
    pub(super) reads_spared: bool,
}

impl World {
    pub(super) fn new(swarm: &Swarm, random: fastrand::Rng, trace: Trace) -> World {
        let files = FileSystem::new(swarm.granularity_ms);
        World {
            clock: Clock::new(),
            files,
            server: Server::new(swarm),
            trace,
            random,
            act_in: None,
            short_reads: swarm.short_reads,
            read_errors: swarm.read_errors,
            reads_spared: false,
        }
    }

    /// A call of the agent to the file system: others may come before it, and it may fail.
    pub(super) fn file_call(&mut self) -> io::Result<()> {
        match self.act_in {
            Some(0) => {
                self.act_in = None;
                self.trace.note("in the middle of a tick", &[]);
                self.act(true);
            }
            Some(left) => self.act_in = Some(left - 1),
            None => {}
        }
        if self.read_errors && !self.reads_spared && self.random.u8(..) < READ_ERROR_SHARE {
            let errors = [rustix::io::Errno::IO, rustix::io::Errno::STALE, rustix::io::Errno::ACCESS];
            let error = errors[self.random.usize(0..errors.len())];
            self.trace.note("read error", &[u64::from(error.raw_os_error().unsigned_abs())]);
            return Err(error.into());
        }
        Ok(())
    }

    /// Whether this read falls short, and by which share of 256.
    pub(super) fn short_read(&mut self) -> Option<u8> {
        (self.short_reads && self.random.bool()).then(|| self.random.u8(..))
    }

    /// The server does one thing.
    pub(super) fn serve(&mut self) {
        self.act(false);
    }

    fn act(&mut self, in_tick: bool) {
        let World { clock, files, server, trace, random, .. } = self;
        server.act(&mut Context { clock, files, trace, random, in_tick });
    }

    /// The server does what is due: new files after a rotation, the last words of old writers.
    pub(super) fn serve_due(&mut self) {
        let World { clock, files, server, trace, random, .. } = self;
        server.act_due(&mut Context { clock, files, trace, random, in_tick: false });
    }

    /// The server finishes its lines, follows its rotations, and writes no more.
    pub(super) fn settle_server(&mut self) {
        let World { clock, files, server, trace, random, .. } = self;
        server.settle(&mut Context { clock, files, trace, random, in_tick: false });
        (self.read_errors, self.short_reads, self.act_in) = (false, false, None);
    }
}
