//! Every limit and size of the harness, with its unit. Constants of a format or of the kernel stand where they are used.

use std::time::Duration;

// Command line.

/// Most seeders, or leechers, of a transfer: each is a process on this machine.
pub(crate) const NODES_MAX: usize = 64;

/// Largest weight of one kind of request in a mix, so that sums stay within 32 bits.
pub(crate) const MIX_WEIGHT_MAX: u32 = 1_000_000;

// Waiting.

/// Interval at which a condition without a notification is checked.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Time between SIGTERM and SIGKILL for a child process, in milliseconds.
pub(crate) const END_MS: u64 = 5_000;

/// Time in which a program of Shoal must report that it is ready, in milliseconds. A tracker syncs its disk first.
pub(crate) const READY_MS: u64 = 30_000;

/// Time in which a rival's server must accept connections.
pub(crate) const RIVAL_READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Time in which restarted seeders must be known to the tracker again, in milliseconds.
pub(crate) const SEEDERS_BACK_MS: u64 = 30_000;

/// Base time limit of a round, in seconds. [`ROUND_SLOWEST_BYTES_PER_S`] adds to it.
pub(crate) const ROUND_MAX_S: u64 = 60;

/// A round may also take the time of all its bytes at this rate. After that its receivers are killed.
pub(crate) const ROUND_SLOWEST_BYTES_PER_S: u64 = 16 << 20;

// Processes and memory.

/// Interval of memory samples, in milliseconds: short enough for the peak of a run of half a second.
pub(crate) const MEMORY_SAMPLE_MS: u64 = 25;

/// A memory sample of many processes is slow: the pause after it is at least this many times its duration.
pub(crate) const SAMPLE_PAUSE_FACTOR: u32 = 19;

/// Most processes that count as descendants of one process.
pub(crate) const DESCENDANTS_MAX: usize = 4_096;

/// Bytes of a failed program's output that its error shows.
pub(crate) const LAST_OUTPUT_BYTES: u64 = 600;

/// Failed receivers of a round whose errors are shown.
pub(crate) const FAULTS_SHOWN: usize = 3;

/// Anonymous memory that a transfer needs besides the file's pages, in bytes: the buffers of every node.
pub(crate) const WARM_EXTRA_BYTES: u64 = 256 << 20;

/// Length of a write that warms up pages of files, in bytes: one piece, as in a transfer.
pub(crate) const WARM_WRITE_BYTES: usize = 512 << 10;

/// Largest part of the available memory that is warmed up, in percent. The rest keeps the source cached.
pub(crate) const WARM_MAX_PERCENT: u64 = 60;

// The transferred file.

/// Buffer for writing and reading whole files, in bytes.
pub(crate) const FILE_BUFFER_BYTES: usize = 1 << 20;

/// Buffer of the single SHA-1 pass, in bytes: it stays in the L2 cache between the read and the hash.
pub(crate) const HASH_PASS_BUFFER_BYTES: usize = 256 << 10;

/// Pieces that are hashed in one call, as a download verifies what has arrived.
pub(crate) const HASH_BATCH_PIECES: usize = 16;

/// Part of the source that may still be cached at the start of a cold round.
pub(crate) const COLD_CACHED_MAX: f64 = 0.01;

/// Copies that must fit on the disk besides the source and the leechers' copies: one being created or removed, and the
/// copy that rqbit seeds.
pub(crate) const SPARE_COPIES: u64 = 2;

/// The kernel starts write-back when dirty pages exceed memory divided by this (`vm.dirty_background_ratio` of 10).
pub(crate) const WRITE_BACK_DIVISOR: u64 = 10;

// Swarm hosts.

/// Bytes that an uplink may send in one burst: a few of the largest packet bundles.
pub(crate) const BURST_BYTES: u32 = 256 * 1024;

/// Longest queueing delay of an uplink before it drops packets, in milliseconds.
pub(crate) const QUEUE_MS: u32 = 100;

/// Default time limit of a swarm's downloads, as a multiple of the fluid limit. [`ROUND_MAX_S`] adds to it.
pub(crate) const SWARM_LIMIT_FACTOR: f64 = 20.0;

/// Time without progress after which a swarm's download fails, in seconds, as the client's `--wait` takes it.
pub(crate) const DOWNLOAD_WAIT_S: &str = "60";

// BitTorrent announces.

/// Longest announce that is read, in bytes.
pub(crate) const ANNOUNCE_MAX_BYTES: usize = 8_192;

/// Time that a client has to send its announce.
pub(crate) const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(5);

/// Announce interval that clients are given, in seconds.
pub(crate) const ANNOUNCE_INTERVAL_S: u32 = 60;

// The load on a tracker.

/// Accounts, each with one session, that the connections share: each login costs the tracker a slow hash.
pub(crate) const ACCOUNTS: usize = 16;

/// Pieces of the file that is looked up.
pub(crate) const FILE_PIECES: u32 = 64;

/// Peers that announce themselves to opentracker.
pub(crate) const ANNOUNCING_PEERS: u64 = 1_000;

/// Requests in flight on one connection at the maximum rate.
pub(crate) const PIPELINE_DEPTH: usize = 16;

/// Most requests in flight on one connection at a fixed rate. Later ones are sent late; their latency still counts from
/// when they were due.
pub(crate) const IN_FLIGHT_MAX: usize = 4_096;

/// Time after which a request counts as unanswered, in milliseconds.
pub(crate) const ANSWER_TIMEOUT_MS: u64 = 30_000;

/// Buffer for reading from a connection, in bytes.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Events taken from the kernel at once.
pub(crate) const EVENTS: usize = 1_024;

/// The load sleeps in the kernel only if the next request is due later than this, in milliseconds; otherwise it polls, since
/// the kernel wakes it up to a millisecond late.
pub(crate) const POLL_MIN_MS: u64 = 2;

/// Interval of the points of the answer rate over time, in milliseconds.
pub(crate) const SERIES_EVERY_MS: u64 = 100;

/// Time of each search for a maximum, as a part of the time at the fixed rate.
pub(crate) const MAXIMUM_SHARE: f64 = 0.2;

/// Open files that the harness needs besides its connections.
pub(crate) const FILES_EXTRA: u64 = 256;

/// Memory that tracker and load use in a round, in bytes. It is warmed up before each round.
pub(crate) const ROUND_BYTES: u64 = 512 << 20;

// Records.

/// Significant decimal digits of each value in a latency histogram.
pub(crate) const LATENCY_DIGITS: u8 = 3;

/// Largest latency that a histogram records, in nanoseconds: one hour.
pub(crate) const LATENCY_MAX_NS: u64 = 3_600_000_000_000;

/// Most runs that may begin within one second in one folder.
pub(crate) const RUNS_A_SECOND_MAX: u32 = 100;

/// Most points of a series. Every second point is dropped until they fit.
pub(crate) const SERIES_MAX_POINTS: usize = 2_000;

/// Longest file of records that is read back, in bytes.
pub(crate) const RECORDS_FILE_MAX_BYTES: u64 = 64 << 20;

/// Most runs that are read back from one folder, the latest ones.
pub(crate) const RUNS_READ_MAX: usize = 200;

// Pictures.

/// Width of every picture, in pixels.
pub(crate) const WIDTH_PX: u32 = 860;

/// Height of a chart with two axes, in pixels, without its legend.
pub(crate) const CHART_HEIGHT_PX: u32 = 340;

/// Height of a legend's row, in pixels.
pub(crate) const LEGEND_ROW_PX: u32 = 20;

/// Height of a bar's row, in pixels.
pub(crate) const BAR_ROW_PX: u32 = 24;

/// Left end of every bar, in pixels. Names stand to the left of it.
pub(crate) const BARS_LEFT_PX: u32 = 310;

/// Right end of the longest bar, in pixels. Values stand to the right of it.
pub(crate) const BARS_RIGHT_PX: u32 = 620;

/// Half of a bar's thickness, in pixels.
pub(crate) const HALF_BAR_PX: i32 = 7;

/// Half of the height of a whisker's ends, in pixels.
pub(crate) const HALF_WHISKER_PX: i32 = 4;

/// Most curves in one chart that stay readable.
pub(crate) const CURVES_MAX: usize = 12;

/// Points of a percentile curve per halving of the distance to the maximum, as in HdrHistogram's own plots.
pub(crate) const TICKS_PER_HALF_DISTANCE: u32 = 5;

/// Most bars in one picture.
pub(crate) const BARS_MAX: usize = 80;

/// Metrics of a run whose bars are shown unfolded.
pub(crate) const PICTURES_SHOWN: usize = 6;

/// Length of the longest bar on a terminal, in characters.
pub(crate) const TEXT_BAR_CHARS: usize = 40;
