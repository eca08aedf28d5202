# Three Kafka brokers with TLS that ask for a client certificate; replication 3, two in sync; failover in some seconds.

# shellcheck source=kafka-common.sh
. "$here/kafka-common.sh"

nodes="1 2 3"
parts() { echo broker-1 broker-2 broker-3; }

# Where a test has left a file `hosts-N` for each broker N, the brokers know each other by name and look names up there: the
# test stands between them, and may cut one off. So it may from clients, who are told the port in `port.clients-N`.
host() { if [ -e "$dir/hosts-$1" ]; then echo "broker-$1"; else echo 127.0.0.1; fi; }
told() { cat "$dir/port.clients-$1" 2>/dev/null || port "client-$1"; }

launch() {
    local node voters="" client inner names=()
    certificates
    for node in $nodes; do voters+="${voters:+,}$node@$(host "$node"):$(port "controller-$node")"; done
    for node in $nodes; do
        client=$(port "client-$node") inner=$(port "internal-$node")
        mkdir -p "$dir/$node"
        if [ -e "$dir/hosts-$node" ]; then names=("-Djdk.net.hosts.file=$dir/hosts-$node"); fi
        {
            lean
            cat <<PROPERTIES
node.id=$node
listeners=CLIENT://127.0.0.1:$client,INTERNAL://127.0.0.1:$inner,CONTROLLER://127.0.0.1:$(port "controller-$node")
advertised.listeners=CLIENT://127.0.0.1:$(told "$node"),INTERNAL://$(host "$node"):$inner,CONTROLLER://$(host "$node"):$(port "controller-$node")
listener.security.protocol.map=CLIENT:SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
controller.quorum.voters=$voters
ssl.keystore.type=PEM
ssl.keystore.location=$tls/server.pem
ssl.truststore.type=PEM
ssl.truststore.location=$tls/ca.pem
listener.name.client.ssl.client.auth=required
log.dirs=$dir/$node/data
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
controller.quorum.election.timeout.ms=500
controller.quorum.election.backoff.max.ms=300
controller.quorum.fetch.timeout.ms=1000
replica.lag.time.max.ms=5000
PROPERTIES
        } >"$dir/$node/server.properties"
        format "$dir/$node" || return 1
        spawn "broker-$node" "${jvm[@]}" ${names[@]+"${names[@]}"} kafka.Kafka "$dir/$node/server.properties"
    done
}

internal() { port "internal-$1"; }
brokers() { local node list=""; for node in $nodes; do list+="${list:+,}127.0.0.1:$("$1" "$node")"; done; echo "$list"; }
ready() { python3 "$here/kafka_ready.py" 3 "$(brokers internal)"; }

lines() {
    echo "OBTRACE_TEST_KAFKA_CLUSTER=$(brokers told)"
    echo "OBTRACE_TEST_KAFKA_CA=$tls/ca.pem"
    echo "OBTRACE_TEST_KAFKA_CERT=$tls/client.crt"
    echo "OBTRACE_TEST_KAFKA_KEY=$tls/client.key"
}
