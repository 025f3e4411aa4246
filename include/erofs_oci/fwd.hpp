// SPDX-License-Identifier: Apache-2.0
/// @file
/// The library's classes, declared. Written by tools/umbrella.py.
#pragma once

#include <erofs_oci/core/source.hpp>

namespace erofs_oci {

// combinator
struct AbortInDebug;
struct Backoff;
struct CacheOptions;
struct CacheStats;
template <RandomAccessSource Part>
class ConcatList;
class GrowingChunk;
struct IgnoreFaults;
class Lru;
class Metrics;
template <RandomAccessSource Inner>
class Padded;
class RecordTo;
template <RandomAccessSource Inner>
class Ref;
struct RequestRecord;
class S3Fifo;
template <RandomAccessSource Inner>
class Shared;
template <RandomAccessSource Inner>
class Slice;
struct Streamed;
struct VerifiedChunk;

// core
class AnySource;
class ErrcCategory;
struct Error;
class FlatBuffer;
class FlatList;
class FlatTable;
class ManualClock;
class SharedMemory;
struct SteadyClock;
class UniqueFd;
class Workers;

// digest
class Digest;
class Hasher;

// fuse
struct AttachOptions;
struct AttachedFile;
struct FuseConnection;
struct FuseFailure;
template <RandomAccessSource Source>
class FuseFile;
struct FuseFileOptions;
template <RandomAccessSource Source>
class FuseImage;
struct FuseImageOptions;
class FuseInflight;
struct FuseMountOptions;
struct FuseServeOptions;
class FuseSession;
template <RandomAccessSource Source>
class FuseTree;
struct HostSupport;
struct ImageNeeds;
struct KernelVersion;
class LoopDevice;
struct MountChoice;
struct MountVerdict;

// gzip
struct BlockStep;
struct Checkpoint;
struct GzipIndex;
struct GzipScanEvents;
struct GzranOptions;
class GzranPool;
struct GzranStats;
struct InflateStep;
class IsalBlockDecoder;
class IsalInflater;
struct LayerIndex;
struct LayerIndexOptions;
struct LayerSpan;
class MemberFraming;
class MemberHeaderParser;
struct MemberTrailer;
struct OpenedIndex;
struct ZinfoHeader;
class ZlibBlockDecoder;
class ZlibInflater;
struct Ztoc;
struct ZtocFile;
struct ZtocRecord;
struct ZtocSpans;

// http
struct HttplibOptions;
class HttplibTransport;
struct Proxies;
struct Proxy;

// image
struct DeviceImage;
struct ImageLayer;
struct ImageReadOptions;
struct IndexOptions;
class IndexStore;
struct LayerProgress;
struct LayerSources;
struct MergedImage;
struct Placement;
struct StoredLayer;

// nbd
struct Export;
class IoctlConnect;
struct ListenOptions;
struct NbdDeviceOptions;
struct NbdDeviceStatus;
template <RandomAccessSource Source>
class NbdEngine;
struct NbdEngineOptions;
class NbdNetlink;
struct NbdReconfigure;
class NbdRelay;
struct NbdRelayCounters;
struct NbdRelayOptions;
struct NbdRelaySocket;
struct NbdServerOptions;
template <RandomAccessSource Source>
class NbdSession;
struct Negotiated;
class NetlinkConnect;
struct SessionContext;
struct SessionLimits;
class SocketListen;

// oci
struct Authorization;
struct Challenge;
struct CredentialOptions;
struct Credentials;
struct Descriptor;
struct HelperOutcome;
struct Image;
struct Index;
class Layout;
struct Manifest;
struct Mirror;
struct Platform;
struct Reference;
struct RegistryOptions;
struct SociIndex;
struct Token;

// recovery
struct CredentialSource;
struct GivenCredentials;
class HangCheck;
class Heartbeat;
class Journal;
class JournalDirectory;
class JournalEntry;
struct KnownSpan;
struct LocalFile;
struct ProcessExit;
struct ProcessIdentity;
struct ProcessStat;
struct ProcessView;
struct Record;
struct RecordAttach;
struct RecordImage;
struct RecordLayer;
struct RecordReach;
class ServiceNotifier;
struct SupervisedDaemon;
struct SupervisionOptions;
class Supervisor;
struct SupervisorHooks;
struct UpstreamRecord;

// source
struct ContentRange;
struct HttpHead;
struct HttpHeader;
struct HttpLimits;
struct HttpOptions;
struct HttpRequest;
class Local;
class Memory;
class RangeReceiver;
class TargetCache;
struct Url;
class Zeros;

}  // namespace erofs_oci
