"""One row per rule: a permanent id, the sentence, what our server does, and the versions that it binds.

Ids are words; an id never changes, and never comes back with another meaning. The part before the dot is the section. "Refuse" means: no reply
byte, that connection closed, its buffers freed, the process alive (the protocol has no error reply). What genuine builds do is
in `observed`, a file per build. A rule binds servers, unless `binds` says that it is one for clients, or for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ggml_rpc_ref.spec.versions import V1_0_0, V3_0_0, V3_5_0, V3_6_1, V4_0_0, V5_0_0, V5_1_0, V7_0_0, V8_0_0, Version, present

Level = Literal["MUST", "SHOULD", "MAY"]
Party = Literal["server", "client", "both"]
"""Whom a rule binds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One normative sentence.

    Attributes:
        id: section and words, e.g. "tensor.in-buffer"; permanent.
        level: by RFC 2119.
        sentence: the rule.
        outcome: what our server does where the rule applies; of a rule for clients, what our client does.
        since: the first version that it binds.
        until: the first version that it no longer binds.
        binds: servers, clients or both.
    """

    id: str
    level: Level
    sentence: str
    outcome: str
    since: Version = V1_0_0
    until: Version | None = None
    binds: Party = "server"

    def binds_to(self, party: Party) -> bool:
        """Whether the rule is one for servers, or for clients."""
        return self.binds in (party, "both")

    def present(self, version: Version) -> bool:
        """Whether the rule binds servers, or clients, of a version."""
        return present(version, self.since, self.until)


_REFUSE = "refuses"


def _client(id: str, level: Level, sentence: str, outcome: str, since: Version = V1_0_0, until: Version | None = None) -> Rule:
    return Rule(id, level, sentence, outcome, since, until, "client")


_ROWS = (
    # ------------------------------------------------------------------------------------------------ frame
    Rule("frame.command-known", "MUST", "A server refuses a command byte that its version does not define.", _REFUSE),
    Rule("frame.size-fixed", "MUST", "A server refuses a fixed-size request whose size field differs from its record's size, before reading the payload.", _REFUSE),
    Rule("frame.size-minimum", "MUST", "A server refuses a SET_TENSOR or GRAPH_COMPUTE whose size field is below its fixed part.", _REFUSE),
    Rule("frame.size-bounded", "MUST", "A server allocates nothing on the strength of a size field or a count alone: memory grows with what arrives, and the server refuses, without waiting for the rest, once what has arrived shows the message to be wrong.", _REFUSE),
    Rule("frame.reply-presence", "MUST", "A server answers exactly the requests that its version's table says are answered, with exactly the payload size it says.", "answers by the table"),
    Rule("frame.reply-order", "MUST", "Requests of a connection take effect, and replies are sent, in the order of the requests, pipelined or not.", "does so"),
    Rule("frame.segmentation", "MUST", "A message means the same however TCP cuts it up.", "does so", binds="both"),
    Rule("frame.complete", "MUST", "A message that has begun is sent to its last byte; if the end of the connection cuts one off, the receiver does nothing for it and answers nothing.", "ends the connection", binds="both"),
    _client("frame.requests", "MUST", "A client sends only requests of its version, each with exactly the size that its fields have.", "does so"),
    _client("frame.reply-checked", "MUST", "A client takes nothing from a reply of another size than its request calls for, and sends nothing more on that connection.", "raises Violation and closes"),
    _client("frame.reply-missing", "MUST", "Where the connection ends while a reply is due, or in the middle of one, a client takes the request as failed: it says so, or asks again on another connection.", "raises ConnectionError"),
    _client("frame.reply-late", "SHOULD", "A client waits for a reply that comes late: the protocol has no time-outs, and a graph may take minutes.", "waits as long as its caller lets it, 60 s by default"),
    # ---------------------------------------------------------------------------------------------- session
    Rule("session.hello-first", "MUST", "A server refuses a connection whose first command is not HELLO.", _REFUSE),
    Rule("session.hello-once", "MUST", "A server refuses a second HELLO.", _REFUSE),
    Rule("session.hello-version", "MUST", "HELLO is answered with the version whose layouts the server speaks from then on.", "answers 3.6.1"),
    _client("session.version-accepted", "MUST", "A client goes on only with a server of its own major version and a minor version not above its own.", "names both versions and stops"),
    _client("session.speaks-older", "MUST", "A client that goes on with a version older than its own speaks that one: its sizes, its replies, its op numbers.", "speaks it; with --as it keeps to its own, as llama.cpp's does", since=V3_5_0),
    _client("session.says-hello", "MUST", "A client says HELLO first on each connection, once, and in the form of its version.", "does so"),
    _client("session.client-caps", "MUST", "A client that has no transport but TCP sends conn_caps of zeros, and stays on TCP whatever the server's are.", "does so", since=V4_0_0),
    _client("session.unharmed", "MUST", "Whatever a server answers and wherever it leaves, a client's process neither dies of it by a fault of memory or arithmetic nor waits for ever.", "raises an error"),
    _client("session.lives", "SHOULD", "A client tells its caller of a server's fault rather than end the process by a signal.", "raises an error"),
    # 24 bytes each way since 4.0.0, all of them for RDMA (llama.cpp #20590)
    Rule("session.caps", "MUST", "A server that offers no transport but TCP answers HELLO with conn_caps of zeros, and stays on TCP whatever the client's are.", "offers none", since=V4_0_0),
    Rule("session.survives", "MUST", "After a refusal, a cut-off message or a vanished peer the process serves on, and other connections notice nothing.", "does so"),
    Rule("session.frees", "MUST", "When a connection ends, its buffers, stored graphs and handles are gone.", "does so"),
    Rule("session.isolated", "MUST", "A handle of one connection means nothing on another.", _REFUSE),
    Rule("session.concurrent", "SHOULD", "A server answers a second client while a first one is connected.", "a thread per connection"),
    # ----------------------------------------------------------------------------------------------- device
    Rule("device.index", "MUST", "A server refuses a device index that is not below DEVICE_COUNT.", _REFUSE, since=V3_0_0),
    Rule("device.count", "MUST", "DEVICE_COUNT is at least 1 and does not change.", "as given by -d", since=V3_0_0),
    Rule("device.memory", "MUST", "GET_DEVICE_MEMORY reports no more memory free than in total.", "total is the cap (-m), free what is left of it and of the machine"),
    Rule("device.alignment", "MUST", "GET_ALIGNMENT answers a power of two, and every base_ptr of that device is a multiple of it.", "32"),
    Rule("device.max-size", "MUST", "GET_MAX_SIZE answers a size above 0.", "the memory cap"),
    _client("device.named", "MUST", "A client names only devices below DEVICE_COUNT.", "refuses another index (Misuse)", since=V3_0_0),
    _client("device.aligned", "MUST", "A client places tensors, but for views, at multiples of their device's alignment.", "does so"),
    _client("device.within-max-size", "SHOULD", "A client asks for no buffer larger than GET_MAX_SIZE.", "refuses a larger one (Misuse)"),
    # ----------------------------------------------------------------------------------------------- buffer
    Rule("buffer.known", "MUST", "A server refuses a remote_ptr that is not a live buffer of the connection in BUFFER_GET_BASE, FREE_BUFFER and BUFFER_CLEAR.", _REFUSE),
    Rule("buffer.freed-once", "MUST", "A server refuses to free a buffer twice.", _REFUSE),
    Rule("buffer.alloc-fails", "MUST", "An ALLOC_BUFFER that can't be met is answered with remote_ptr 0 and remote_size 0, and the connection goes on.", "answers (0, 0)"),
    Rule("buffer.alloc-size", "MUST", "A buffer has at least the bytes asked for, and remote_size says how many.", "exactly as many"),
    Rule("buffer.empty", "SHOULD", "ALLOC_BUFFER of size 0 gives a handle with base_ptr 0 and remote_size 0.", "does so"),
    Rule("buffer.disjoint", "MUST", "Address ranges of a connection's live buffers do not overlap.", "gaps of a page between them"),
    Rule("buffer.opaque", "SHOULD", "Handles and addresses are not the process's own (SEC-22).", "random handles, made-up addresses"),
    Rule("buffer.clean", "SHOULD", "A new buffer shows nothing of what freed buffers held.", "zero bytes"),
    Rule("buffer.clear", "MUST", "BUFFER_CLEAR sets every byte of the buffer to the value.", "does so"),
    _client("buffer.own-handles", "MUST", "A client uses a handle only on the connection that gave it, until it frees it, and frees it once.", "does so"),
    _client("buffer.alloc-refused", "MUST", "A client takes a remote_ptr of 0 as a buffer that it did not get, and sends nothing about it.", "raises Misuse; the connection goes on"),
    # ----------------------------------------------------------------------------------------------- tensor
    Rule("tensor.type-known", "MUST", "A server refuses a tensor whose type is not a live ggml_type of its version.", _REFUSE),
    Rule("tensor.block-multiple", "MUST", "A server refuses a tensor of a block type whose ne[0] is not a multiple of the block.", _REFUSE),
    Rule("tensor.buffer-known", "MUST", "A server refuses SET_TENSOR, SET_TENSOR_HASH, GET_TENSOR and COPY_TENSOR on a tensor that lies in no live buffer of the connection.", _REFUSE),
    Rule("tensor.in-buffer", "MUST", "A server refuses a tensor whose ggml_nbytes bytes from data on are not all inside its buffer, computed without wrapping.", _REFUSE),
    Rule("tensor.empty", "MUST", "A tensor with a dimension of 0 has no bytes and is accepted wherever its address lies in its buffer.", "accepts"),
    # a split over two servers (-sm tensor) may leave one of them nothing of a tensor
    Rule("tensor.empty-anywhere", "MUST", "A tensor without elements is accepted in a live buffer whatever its address.", "accepts", since=V8_0_0),
    Rule("tensor.init", "MUST", "INIT_TENSOR leaves the tensor's data as they are.", "does nothing"),
    Rule("tensor.alloc-size", "MUST", "GET_ALLOC_SIZE answers at least ggml_nbytes of the tensor, the same each time; a tensor of 2^64 bytes or more is refused.", "ggml_nbytes"),
    _client("tensor.valid", "MUST", "A client sends only tensors that a server must take: of a type of its version, of whole blocks, inside their buffer.", "refuses others (Misuse)"),
    _client("tensor.zero-filled", "MUST", "A client ends a tensor's name with a zero byte, and fills the rest of it, and the padding, with zeros.", "does so"),
    _client("tensor.room", "MUST", "A client gives a tensor for which it has asked GET_ALLOC_SIZE at least as many bytes of its buffer as the answer says.", "does so"),
    _client("tensor.uses-counted", "SHOULD", "In a graph use_count is not less than the number of slots of its nodes that name the tensor, or it is 0, which says nothing; outside graphs it is 0.", "counts them", since=V5_1_0),
    # ------------------------------------------------------------------------------------------------- data
    Rule("data.in-tensor", "MUST", "A server refuses to write or read a range that leaves the tensor: offset and size are compared with ggml_nbytes without wrapping.", _REFUSE),
    Rule("data.offset-wrap", "MUST", "A server refuses an offset so large that address plus offset wraps round 2^64.", _REFUSE),
    Rule("data.round-trip", "MUST", "GET_TENSOR answers the bytes that SET_TENSOR wrote there.", "does so"),
    Rule("data.partial", "MUST", "SET_TENSOR of part of a tensor changes that part only, and GET_TENSOR of part of it answers that part only.", "does so"),
    Rule("data.empty", "SHOULD", "SET_TENSOR and GET_TENSOR of 0 bytes inside the tensor are accepted.", "accepts, also at the very end"),
    Rule("data.hash-miss", "MUST", "SET_TENSOR_HASH of data that the server does not have is answered with 0 and changes nothing.", "answers 0"),
    Rule("data.hash-hit", "MUST", "A SET_TENSOR_HASH that is answered with 1 has written data with that hash.", "checks length and content first"),
    Rule("data.copy", "MUST", "A COPY_TENSOR answered with 1 has copied the source's bytes into the destination.", "does so"),
    Rule("data.copy-fits", "MUST", "A server refuses COPY_TENSOR where the source's bytes do not fit into the destination.", _REFUSE),
    Rule("data.memset", "MUST", "MEMSET_TENSOR sets the bytes from offset on, as many as size says, and no other.", "does so", since=V5_0_0),
    Rule("data.memset-in-tensor", "MUST", "A server refuses a MEMSET_TENSOR whose range leaves the tensor: offset and size are compared with ggml_nbytes without wrapping.", _REFUSE, since=V5_0_0),
    # llama.cpp #28789: without the flag a day's activations filled a disk
    Rule("data.cache-flag", "MUST", "A server keeps nothing of a SET_TENSOR whose cache_flag is 0 for SET_TENSOR_HASH.", "keeps nothing", since=V7_0_0),
    Rule("data.cache-flag-set", "MUST", "Every cache_flag but 0 means the same: the data are written, and the server may keep them.", "keeps those over 10 MiB", since=V7_0_0),
    Rule("data.rows", "MUST", "SET_TENSOR_2D writes row i at offset + i times stride, and changes no byte between the rows; GET_TENSOR_2D answers such rows in order, one after the other.", "does so", since=V8_0_0),
    Rule("data.rows-in-tensor", "MUST", "A server refuses rows that leave the tensor: offset, stride times one less than n_copies, and size are added without wrapping and compared with ggml_nbytes.", _REFUSE, since=V8_0_0),
    Rule("data.rows-none", "MUST", "A server refuses a SET_TENSOR_2D or GET_TENSOR_2D whose n_copies or size is 0.", _REFUSE, since=V8_0_0),
    Rule("data.rows-length", "MUST", "A server refuses a SET_TENSOR_2D that has not as many bytes of data as size times n_copies.", _REFUSE, since=V8_0_0),
    Rule("data.rows-overlap", "MUST", "Where stride is below size, the rows of SET_TENSOR_2D are written in order, the later over the earlier, and those of GET_TENSOR_2D are read as they lie.", "does so", since=V8_0_0),
    Rule("data.rows-bounded", "MUST", "A server answers a GET_TENSOR_2D whose rows overlap, or refuses it where the reply would have more bytes than it grants, and lives.", "refuses replies of more than 1 GiB", since=V8_0_0),
    _client("data.valid", "MUST", "A client writes, reads and copies only ranges and rows that lie inside their tensors.", "refuses others (Misuse)"),
    _client("data.hash-asked", "MUST", "The hash of a SET_TENSOR_HASH is FNV-1a 64 of data that the client would send; answered with 0, it sends just those by SET_TENSOR, to the same place.", "does so"),
    _client("data.hash-large", "SHOULD", "A client sends SET_TENSOR_HASH only for more than 10 MiB: servers keep nothing smaller.", "does so"),
    _client("data.copy-refused", "MUST", "A client whose COPY_TENSOR is answered with 0 does not take the destination as written; it reads and writes the data itself, or says that it can't.", "returns False from `copy`"),
    # ------------------------------------------------------------------------------------------------ graph
    Rule("graph.size-exact", "MUST", "A server refuses a GRAPH_COMPUTE whose counts do not fill the message exactly.", _REFUSE),
    Rule("graph.tensor-id", "MUST", "A server refuses a tensor record with id 0 in a graph.", _REFUSE),
    Rule("graph.tensor-unique", "MUST", "A server refuses a graph with two tensor records of one id.", _REFUSE),
    Rule("graph.node-known", "MUST", "A server refuses a graph whose nodes include an id that has no tensor record; 0 never has one.", _REFUSE),
    Rule("graph.node-unique", "MUST", "A server refuses a graph that lists a node twice.", _REFUSE),
    Rule("graph.source-known", "MUST", "A server refuses a graph in which a src or view_src, unless 0, names an id that has no tensor record.", _REFUSE),
    Rule("graph.acyclic", "MUST", "A server refuses a graph in which a tensor is, through src and view_src, its own source; a CPY that names itself as src[1] (ggml_cast) is not a cycle.", _REFUSE),
    Rule("graph.deep", "MUST", "A chain of sources may be as long as the graph; its length does not break the server.", "computes"),
    Rule("graph.null-data", "MUST", "A server refuses a tensor in a graph that has an address but no live buffer; one with neither is accepted as long as no computed node touches it.", _REFUSE),
    Rule("graph.op-known", "MUST", "A server refuses a node to be computed whose op is not in its version's op table.", _REFUSE),
    Rule("graph.op-custom", "MUST", "A server refuses a node with op MAP_CUSTOM1, MAP_CUSTOM2, MAP_CUSTOM3 or CUSTOM: op_params would be a function pointer.", _REFUSE),
    Rule("graph.op-supported", "MUST", "A server refuses a graph with an op or types that it cannot compute, and lives.", _REFUSE),
    Rule("graph.arity", "MUST", "A server refuses a node that lacks a source its op needs.", _REFUSE),
    Rule("graph.type", "MUST", "A server refuses a node whose types its op does not take.", _REFUSE),
    Rule("graph.shape", "MUST", "A server refuses a node whose dimensions, strides or parameters its op does not allow.", _REFUSE),
    Rule("graph.cost", "MUST", "A server refuses a graph that would take more memory or time than it grants, and lives; it does not leave out what costs too much.", _REFUSE),
    Rule("graph.overlap", "MUST", "Where a result shares bytes with a source, a server computes what it would if the source had been read before the result is written, or refuses the graph.", "computes so"),
    Rule("graph.index", "MUST", "A server refuses, when it computes, an index among a tensor's contents that is out of range, and lives.", _REFUSE),
    Rule("graph.view", "MUST", "A view lies inside what it is a view of: same buffer, data equal to view_src's data plus view_offs, its bytes inside view_src's bytes.", _REFUSE),
    Rule("graph.computes", "MUST", "After GRAPH_COMPUTE the nodes hold what their ops compute from their sources, within the op's tolerance.", "the oracle"),
    # llama.cpp #18550 came on 2026-01-19, while 3.6.0 was current. We side with the first builds of 3.6.0: a node computed without
    # need harms nobody, but a client from before that day, whose nodes lack the flag, would get zeros.
    Rule("graph.flag-compute", "MUST", "A node without flag COMPUTE (16) is not computed.", "skips it", since=V3_6_1),
    Rule("graph.empty", "SHOULD", "A graph without nodes is accepted and computes nothing.", "accepts"),
    # 8.0.0 keeps several graphs of a device, and its GRAPH_RECOMPUTE names one by uid
    Rule("graph.recompute", "MUST", "GRAPH_RECOMPUTE computes the last graph accepted on that connection and device, on the data as they are now.", "runs the stored plan", since=V3_5_0, until=V8_0_0),
    Rule("graph.recompute-stored", "MUST", "A server refuses GRAPH_RECOMPUTE where no graph is stored for the device, or none of its uid.", _REFUSE, since=V3_5_0),
    Rule("graph.recompute-freed", "MUST", "Freeing a buffer that a stored graph uses drops that graph.", "drops it", since=V3_5_0),
    Rule("graph.use-count", "MUST", "use_count changes nothing of what is computed, whatever its value.", "ignores it", since=V5_1_0),
    Rule("graph.recompute-uid", "MUST", "GRAPH_RECOMPUTE computes the graph that came last under its uid on that connection and device, on the data as they are now.", "runs the stored plan", since=V8_0_0),
    Rule("graph.uid-zero", "MUST", "A graph of uid 0 is computed and not stored, and a GRAPH_RECOMPUTE of uid 0 is refused.", _REFUSE, since=V8_0_0),
    # both sides count, and neither tells the other (GRAPH_CACHE_MAX in ggml-rpc.cpp)
    Rule("graph.uid-store", "MUST", "A device of a connection stores graphs under 1,024 uids; when a graph with a uid comes while it has so many, all of them are dropped first. A uid whose graph was dropped with a buffer still counts.", "does so", since=V8_0_0),
    _client("graph.valid", "MUST", "A client sends only graphs that a server must take: their ids, links, views, ops, types and shapes are right.", "refuses others (Misuse)"),
    _client("graph.nodes-in-order", "SHOULD", "A client lists a graph's nodes in such an order that each comes after the nodes that it reads.", "does so"),
    _client("graph.flag-set", "MUST", "A client sets flag COMPUTE (16) on the nodes that it wants computed.", "does so", since=V3_6_1),
    _client("graph.status", "MUST", "A client takes no results from a graph that was answered with another status than 0.", "raises Unsupported", until=V3_5_0),
    _client("graph.recompute-sent", "MUST", "A client sends GRAPH_RECOMPUTE only for a graph that the server still has by its rules: the device's last one, or since 8.0.0 the one under that uid.", "does so", since=V3_5_0),
    # ------------------------------------------------------------------------------------------------- comm
    Rule("comm.init", "MUST", "COMM_INIT with world 2 makes rank 0 listen on the port and rank 1 connect to it; each sends its 24 bytes of conn_caps, and then both answer 1. A server that makes no pairs answers 0.", "does so", since=V8_0_0),
    Rule("comm.init-fails", "MUST", "A COMM_INIT that can't be met (a device, world or rank that is none, a port that can't be bound, a peer that does not come) is answered with 0, and the connection goes on.", "answers 0: rank 1 after 5 s, rank 0 after 30 s without a peer", since=V8_0_0),
    Rule("comm.init-again", "MUST", "COMM_INIT on a device that has a communicator already is answered with 1 and changes nothing.", "answers 1", since=V8_0_0),
    Rule("comm.needed", "MUST", "A server refuses COMM_ALLREDUCE on a device that has no communicator.", _REFUSE, since=V8_0_0),
    Rule("comm.tensor", "MUST", "A server refuses COMM_ALLREDUCE of a tensor that lies in no buffer, of a type that it can't add, or whose elements are not one after the other.", _REFUSE, since=V8_0_0),
    Rule("comm.sum", "MUST", "After COMM_ALLREDUCE of fewer than 32,768 elements, or of another type than F32, the tensor holds its own elements plus the peer's.", "does so", since=V8_0_0),
    Rule("comm.sum-large", "MUST", "From 32,768 elements of F32 on both send theirs as BF16, and each adds the peer's, rounded so, to its own, which are not: the two results may differ.", "does so", since=V8_0_0),
    Rule("comm.peer-lost", "MUST", "A peer that leaves, or stays silent, in the middle of an all-reduce costs the client its connection and nobody else anything.", "ends the connection, after 60 s of silence", since=V8_0_0),
    Rule("comm.free", "MUST", "COMM_FREE ends the device's communicator; where there is none it does nothing.", "does so", since=V8_0_0),
    _client("comm.pair", "MUST", "A client makes two servers a pair by COMM_INIT with world 2, ranks 0 and 1 and the same port; rank 1's host is an address of rank 0's server, ended and filled with zeros.", "has no method for it", since=V8_0_0),
    _client("comm.both-asked", "MUST", "A client sends COMM_INIT to both servers before it waits for either's reply: rank 0 answers only once rank 1 has come.", "has no method for it", since=V8_0_0),
    _client("comm.refused", "MUST", "A client that is answered 0 by COMM_INIT sends no COMM_ALLREDUCE on that device, and does the sum itself.", "has no method for it", since=V8_0_0),
    _client("comm.valid", "MUST", "A client sends COMM_ALLREDUCE only on a device that has a communicator, of a tensor in a buffer, of a type that is added, without gaps.", "has no method for it", since=V8_0_0),
)  # fmt: skip

RULES: dict[str, Rule] = {rule.id: rule for rule in _ROWS}
"""Rule id to its row."""
FOR_SERVERS: dict[str, Rule] = {rule.id: rule for rule in _ROWS if rule.binds_to("server")}
"""The rules that bind servers."""
FOR_CLIENTS: dict[str, Rule] = {rule.id: rule for rule in _ROWS if rule.binds_to("client")}
"""The rules that bind clients."""

assert len(RULES) == len(_ROWS), "two rules have the same id"
