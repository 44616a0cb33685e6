"""The keys of Apache RocketMQ 5.4.0 that trmq does not use, in two grades.

`PROMISES` change what a broker promises (safety, what is stored, who may do what). Ignoring one would be a lie, so it is
refused unless it holds a value under which it promises nothing. All others tune machinery that trmq does not have
(thread pools, buffers, mmap tricks) or belong to a feature that one of the promises switches on: they are ignored, and
listed once at start.

Source: the setters and fields of BrokerConfig, MessageStoreConfig, NettyServerConfig, NettyClientConfig, AuthConfig,
NamesrvConfig and ControllerConfig of 5.4.0.
"""

from __future__ import annotations

from typing import NamedTuple


class Promise(NamedTuple):
    harmless: tuple[str, ...]
    """Values (lower case) that may stand in the file, Apache's default among them."""
    why: str


PROMISES: dict[str, Promise] = {
    "enableDLegerCommitLog": Promise(("false",), "failover without an operator is not there yet; leave it false"),
    "enableControllerMode": Promise(("false",), "failover without an operator is not there yet; leave it false"),
    "enableControllerInNamesrv": Promise(("false",), "the controller is not there yet; leave it false"),
    "enableSlaveActingMaster": Promise(("false",), "failover without an operator is not there yet; leave it false"),
    "enableRemoteEscape": Promise(("false",), "failover without an operator is not there yet; leave it false"),
    "duplicationEnable": Promise(("false",), "replication goes by brokerRole alone; leave it false"),
    "isBrokerContainer": Promise(("false",), "run one process per broker instead of a container"),
    "isInBrokerContainer": Promise(("false",), "run one process per broker instead of a container"),
    "inBrokerContainer": Promise(("false",), "run one process per broker instead of a container"),
    "aclEnable": Promise(("false",), "access control is not there yet, and running without it would leave the broker open"),
    "authenticationEnabled": Promise(("false",), "access control is not there yet, and running without it would leave the broker open"),
    "authorizationEnabled": Promise(("false",), "access control is not there yet, and running without it would leave the broker open"),
    "migrateAuthFromV1Enabled": Promise(("false",), "access control is not there yet, and running without it would leave the broker open"),
    "useTLS": Promise(("false",), "TLS is not there yet, and plain text is not what was asked for"),
    "tls.server.mode": Promise(("permissive", "disabled"), "TLS is not there yet, and plain text is not what was asked for"),
    "tls.enable": Promise(("false",), "TLS is not there yet, and plain text is not what was asked for"),
    "socksProxyConfig": Promise(("", "{}"), "connections are made directly"),
    "storeType": Promise(("default",), "the store has one format, Apache's default one, without RocksDB"),
    "configManagerVersion": Promise(("v1",), "the store has one format, Apache's default one, without RocksDB"),
    "useSingleRocksDBForAllConfigs": Promise(("false",), "the store has one format, Apache's default one, without RocksDB"),
    "rocksdbCQDoubleWriteEnable": Promise(("false",), "the store has one format, Apache's default one, without RocksDB"),
    "timerRocksDBEnable": Promise(("false",), "the store has one format, Apache's default one, without RocksDB"),
    "transRocksDBEnable": Promise(("false",), "the store has one format, Apache's default one, without RocksDB"),
    "indexRocksDBEnable": Promise(("false",), "the store has one format, Apache's default one, without RocksDB"),
    "transientStorePoolEnable": Promise(("false",), "an answered message would die with the process"),
    "readOnlyCommitLogStorePaths": Promise(("", "null"), "the commit log lives in one folder"),
    "messageStorePlugIn": Promise(("",), "store plug-ins are Java classes"),
    "enableConsumeQueueExt": Promise(("false",), "extended consume-queue units are not written"),
    "enableLmq": Promise(("false",), "light message queues are not supported"),
    "enableMultiDispatch": Promise(("false",), "light message queues are not supported"),
    "enableBatchPush": Promise(("false",), "batch consume queues are not supported"),
    "readUnCommitted": Promise(("false",), "consumers read confirmed messages only"),
    "enabledAppendPropCRC": Promise(("false",), "the checksum property is not written"),
    "forceVerifyPropCRC": Promise(("false",), "the checksum property is not verified"),
    "maxTopicLength": Promise(("127",), "topic names have at most 127 bytes"),
    "indexFileWriteEnable": Promise(("true",), "use messageIndexEnable=false to go without the key index"),
    "indexFileReadEnable": Promise(("true",), "use messageIndexEnable=false to go without the key index"),
    "enablePropertyFilter": Promise(("false",), "SQL92 filters are not there yet"),
    "rejectPullConsumerEnable": Promise(("false",), "pull consumers are always served"),
    "litePullMessageEnable": Promise(("true",), "lite pull consumers are always served"),
    "disableConsumeIfConsumerReadSlowly": Promise(("false",), "slow consumers are always served"),
    "useStaticSubscription": Promise(("false",), "subscriptions come from the clients' heartbeats"),
    "startAcceptSendRequestTimeStamp": Promise(("0",), "sends are accepted from the start"),
    "validateSystemTopicWhenUpdateTopic": Promise(("true",), "system topics are always protected"),
    "useServerSideResetOffset": Promise(("true",), "offsets are reset in the broker"),
    "recallMessageEnable": Promise(("false",), "recalling a message is not there yet"),
    "defaultMessageRequestMode": Promise(("pull",), "pop consumption is not there yet"),
    "fetchNameSrvAddrByDnsLookup": Promise(("false",), "list the name servers in namesrvAddr"),
    "fetchNamesrvAddrByAddressServer": Promise(("false",), "list the name servers in namesrvAddr"),
    "clusterTest": Promise(("false",), "the name server answers from its own tables only"),
}

_SERVER = """
    enableShutdownGracefully serverAsyncSemaphoreValue serverCallbackExecutorThreads serverNettyWorkerGroupEnable
    serverOnewaySemaphoreValue serverPooledByteBufAllocatorEnable serverSelectorThreads serverSocketBacklog serverSocketRcvBufSize
    serverSocketSndBufSize serverWorkerThreads shutdownWaitTimeSeconds useEpollNativeSelector writeBufferHighWaterMark
    writeBufferLowWaterMark
"""
_CLIENT = """
    channelNotActiveInterval clientAsyncSemaphoreValue clientCallbackExecutorThreads clientChannelMaxIdleTimeSeconds
    clientCloseSocketIfTimeout clientOnewaySemaphoreValue clientPooledByteBufAllocatorEnable clientSocketRcvBufSize clientSocketSndBufSize
    clientWorkerThreads connectTimeoutMillis disableCallbackExecutor disableNettyWorkerGroup enableReconnectForGoAway
    isScanAvailableNameSrv maxReconnectIntervalTimeSeconds scanAvailableNameSrv
"""
_BROKER = """
    accountStatsEnable accountStatsPrintZeroValues ackMessageThreadPoolNums ackThreadPoolQueueCapacity adminBrokerThreadPoolNums
    adminBrokerThreadPoolQueueCapacity allowRecallWhenBrokerNotWriteable appendAckAsync appendCkAsync asyncSendEnable autoDeleteUnusedStats
    broadcastOffsetExpireMaxSecond broadcastOffsetExpireSecond brokerConfigPath brokerElectionPriority brokerFastFailureEnable
    brokerHeartbeatInterval brokerNotActiveTimeoutMillis cgColdReadThreshold checkSyncStateSetPeriod cleanOfflineBrokerInterval
    clearRetryTopicWhenDeleteTopic clientManageThreadPoolNums clientManagerThreadPoolQueueCapacity coldCtrStrategyEnable commercialBaseCount
    commercialSizePerMsg compatibleWithOldNameSrv compressedRegister consumerFallbehindThreshold consumerManageThreadPoolNums
    consumerManagerThreadPoolQueueCapacity consumerOffsetUpdateVersionStep controllerAddr controllerHeartBeatTimeoutMills
    defaultPopShareQueueNum delayOffsetUpdateVersionStep enableBroadcastOffsetStore enableCalcFilterBitMap enableConnectionMetrics
    enableCreateSysGroup enableDetailStat enableFastChannelEventProcess enableLagAndDlqMetrics enableLmqStats enableMessageStoreMetrics
    enableMixedMessageType enableNetWorkFlowControl enableNotifyAfterPopOrderLockRelease enableNotifyBeforePopCalculateLag enablePopBatchAck
    enablePopBufferMerge enablePopLog enablePopMessageThreshold enablePopMetrics enableRegisterProducer enableRemotingMetrics
    enableRequestMetrics enableRetryTopicV2 enableSingleTopicRegister enableSkipLongAwaitingAck enableSplitMetadata enableSplitRegistration
    enableStatsMetrics enableTransactionMetrics endTransactionPoolQueueCapacity endTransactionThreadPoolNums estimateAccumulation
    expectConsumerNumUseFilter fetchControllerAddrByDnsLookup fetchNamesrvAddrInterval filterDataCleanTimeSpan filterSupportRetry
    flushConsumerOffsetHistoryInterval forceRegister forwardTimeout globalColdReadThreshold heartbeatThreadPoolNums
    heartbeatThreadPoolQueueCapacity highSpeedMode initPopOffsetByCheckMsgInMem isolateLogEnable litePullMessageThreadPoolNums
    litePullThreadPoolQueueCapacity loadBalancePollNameServerInterval loadBalanceProcessorThreadPoolNums loadBalanceThreadPoolQueueCapacity
    lockInStrictMode maxErrorRateOfBloomFilter maxPopPollingSize maxStatsIdleTimeInMinutes metricGrpcExporterIntervalInMills
    metricGrpcExporterTimeOutInMills metricLoggingExporterIntervalInMills metricsExporterType metricsGrpcExporterHeader
    metricsGrpcExporterTarget metricsInDelta metricsLabel metricsOtelCardinalityLimit metricsPromExporterHost metricsPromExporterPort
    popCkMaxBufferSize popCkOffsetMaxQueueSize popCkStayBufferTime popCkStayBufferTimeOut popConsumerFSServiceInit
    popConsumerKVServiceEnable popConsumerKVServiceInit popConsumerKVServiceLog popFromRetryProbability popFromRetryProbabilityForPriority
    popInflightMessageThreshold popLongPollingForceNotifyInterval popPollingMapExpireTimeSeconds popPollingMapSize popPollingSize
    popResponseReturnActualRetryTopic popReviveConcurrency popReviveMaxAttemptTimes popReviveMaxReturnSizePerRead printChannelGroups
    printChannelGroupsMinNum priorityOrderAsc processReplyMessageThreadPoolNums pullMessageThreadPoolNums pullThreadPoolQueueCapacity
    putMessageFutureThreadPoolNums putThreadPoolQueueCapacity queryMessageThreadPoolNums queryThreadPoolQueueCapacity
    realTimeNotifyConsumerChange recoverConcurrently recoverThreadPoolNums rejectTransactionMessage replyThreadPoolQueueCapacity
    retrieveMessageFromPopRetryTopicV1 reviveAckWaitMs reviveInterval reviveMaxSlow reviveQueueNum reviveScanTime rocketmqHome
    sendHeartbeatTimeoutMillis sendMessageThreadPoolNums sendThreadPoolQueueCapacity serverLoadBalancerEnable skipPreOnline
    skipWhenCKRePutReachMaxTimes splitMetadataSize splitRegistrationSize storeReplyMessageEnable subscriptionExpiredTimeout
    syncBrokerMemberGroupPeriod syncBrokerMetadataPeriod syncControllerMetadataPeriod transactionCheckInterval transactionCheckMax
    transactionMetricFlushInterval transactionOpBatchInterval transactionOpMsgMaxSize transactionTimeOut transferMsgByHeap
    updateNameServerAddrPeriod usePIDColdCtrStrategy useSeparateRetryQueue waitTimeMillsInAckQueue waitTimeMillsInAdminBrokerQueue
    waitTimeMillsInHeartbeatQueue waitTimeMillsInLitePullQueue waitTimeMillsInPullQueue waitTimeMillsInSendQueue
    waitTimeMillsInTransactionQueue
"""
_STORE = """
    accessMessageInMemoryHotRatio allAckInSyncStateSet appendTopicForTimerDeleteKey asyncLearner autoMessageVersionOnTopicLen
    batchDispatchRequestThreadPoolNums bitMapLengthConsumeQueueExt bottomMostCompressionTypeForConsumeQueueStore checkCRCOnRecover
    cleanRocksDBDirtyCQIntervalMin cleanSwapedMapInterval coldDataFlowControlEnable coldDataScanEnable combineAssignOffsetCQType
    combineCQEnableCheckSelf combineCQLoadingCQTypes combineCQMaxExtraSearchCommitLogFiles combineCQPreferCQType commitCommitLogLeastPages
    commitCommitLogThoroughInterval commitIntervalCommitLog commitLogForceSwapMapInterval commitLogRecoverMaxNum commitLogSwapMapInterval
    commitLogSwapMapReserveFileNum compactionCqMappedFileSize compactionMappedFileSize compactionScheduleInternal compactionThreadNum
    correctLogicMinOffsetForceInterval correctLogicMinOffsetSleepInterval dLegerGroup dLegerPeers dLegerSelfId dataReadAheadEnable
    debugLockEnable deleteCommitLogFilesInterval deleteConsumeQueueFilesInterval deleteFileBatchMax destroyMapedFileIntervalForcibly
    disappearTimeAfterStart diskFallRecorded dispatchCqCacheNum dispatchCqThreads dispatchFromSenderThread enableAcceleratedRecovery
    enableAsyncReput enableBuildConsumeQueueConcurrently enableCleanExpiredOffset enableCompaction
    enableLogConsumeQueueRepeatedlyBuildWhenRecover enableRocksDBLog enableRunningFlagsInFlush enableScheduleAsyncDeliver
    enableScheduleMessageStats fastFailIfNoBufferInStorePool flushCommitLogLeastPages flushCommitLogThoroughInterval flushCommitLogTimed
    flushConsumeQueueLeastPages flushConsumeQueueThoroughInterval flushIntervalConsumeQueue flushLeastPagesWhenWarmMapedFile
    haFlowControlEnable haMaxTimeSlaveNotCatchup logicQueueForceSwapMapInterval logicQueueSwapMapInterval logicQueueSwapMapReserveFileNum
    logicalDiskSpaceCleanForciblyThreshold mappedFileSizeConsumeQueueExt mappedFileSizeTimerLog mappedFileSwapEnable
    mapperFileSizeBatchConsumeQueue maxAsyncPutMessageRequests maxBatchDeleteFilesNum maxChecksumRange maxConsumeQueueScan
    maxFilterMessageSize maxHaTransferByteInSecond maxLmqConsumeQueueNum maxOffsetMapSize maxRecoveryCommitlogFiles maxRocksDBIndexQueryDays
    maxSlaveResendLength memTableFlushIntervalMs messageIndexSafe offsetCheckInSlave osPageCacheBusyTimeOutMills preferredLeaderId
    pullBatchMaxMessageCount putConsumeQueueDataByFileChannel putMessageTimeout putMsgIndexHightWater realTimePersistRocksDBConfig
    recheckReputOffsetFromCq redeleteHangedFileInterval replicasPerDiskPartition rocksdbCompressionType rocksdbFlushWalFrequency
    rocksdbWalFileRollingThreshold sampleCountThreshold sampleSteps scheduleAsyncDeliverMaxPendingLimit
    scheduleAsyncDeliverMaxResendNum2Blocked searchBcqByCacheEnable sharedByteBufferNum spinLockCollisionRetreatOptimalDegree
    statRocksDBCQIntervalSec storePathBrokerIdentity storePathDLedgerCommitLog storePathEpochFile syncMasterFlushOffsetWhenStartup
    timerCheckMetricsWhen timerColdDataCheckIntervalMs timerCongestNumEachSlot timerEnableCheckMetrics timerEnableDisruptor
    timerEnableRetryUntilSuccess timerFlushIntervalMs timerGetMessageThreadNum timerInterceptDelayLevel timerMaxDelaySec
    timerMetricSmallThreshold timerPrecisionMs timerProgressLogIntervalMs timerPutMessageThreadNum timerRecallToTimeWheelEnable
    timerRecallToTimelineEnable timerRocksDBPrecisionMs timerRocksDBRollIntervalHours timerRocksDBRollMaxTps timerRocksDBRollRangeHours
    timerRocksDBStopScan timerRocksDBTimeExpiredMaxTps timerRollWindowSlot timerSkipUnknownError timerStopDequeue timerStopEnqueue
    timerWarmEnable timerWheelEnable timerWheelSnapshotFlush timerWheelSnapshotIntervalMs topicQueueLockNum totalReplicas
    transWriteOriginTransHalfEnable transientStorePoolSize travelCqFileNumWhenGetMessage useABSLock useReentrantLockWhenPutMessage
    wakeCommitWhenPutMessage wakeFlushWhenPutMessage warmMapedFileEnable writeWithoutMmap
"""
_AUTH = """
    aclCacheExpiredSecond aclCacheMaxNum aclCacheRefreshSecond authConfigPath authenticationMetadataProvider authenticationProvider
    authenticationStrategy authenticationWhitelist authorizationMetadataProvider authorizationProvider authorizationStrategy
    authorizationWhitelist clusterName configName initAuthenticationUser innerClientAuthenticationCredentials
    statefulAuthenticationCacheExpiredSecond statefulAuthenticationCacheMaxNum statefulAuthorizationCacheExpiredSecond
    statefulAuthorizationCacheMaxNum userCacheExpiredSecond userCacheMaxNum userCacheRefreshSecond
"""
_NAMESRV = """
    clientRequestThreadPoolNums clientRequestThreadPoolQueueCapacity defaultThreadPoolNums defaultThreadPoolQueueCapacity productEnvName
    scanNotActiveBrokerInterval unRegisterBrokerQueueCapacity
"""
_CONTROLLER = """
    controllerDLegerGroup controllerDLegerPeers controllerDLegerSelfId controllerRequestThreadPoolQueueCapacity controllerStorePath
    controllerThreadPoolNums controllerType electMasterMaxRetryCount enableElectUncleanMaster jraftConfig mappedFileSize
    notifyBrokerRoleChanged processReadEvent scanInactiveMasterInterval
"""
_TLS = """
    tls.config.file tls.test.mode.enable tls.server.need.client.auth tls.server.keyPath tls.server.keyPassword tls.server.certPath
    tls.server.authClient tls.server.trustCertPath tls.client.keyPath tls.client.keyPassword tls.client.certPath tls.client.authServer
    tls.client.trustCertPath
"""
_SYSTEM = "rmqAddressServerDomain rmqAddressServerSubGroup"

BROKER_OTHERS = frozenset(
    (*PROMISES, *_SERVER.split(), *_CLIENT.split(), *_BROKER.split(), *_STORE.split(), *_AUTH.split(), *_TLS.split(), *_SYSTEM.split())
)
NAMESRV_OTHERS = frozenset((*PROMISES, *_SERVER.split(), *_CLIENT.split(), *_NAMESRV.split(), *_CONTROLLER.split(), *_TLS.split()))
