# What one broker and three have in common: the jars, the JVM, the properties that make a small and quick broker.

kafka_lib="$lib/kafka-$(sha256sum "$here/pom.xml" | cut -c1-12)"
export MALLOC_ARENA_MAX=1

packages() {
    if ! has java; then echo default-jre-headless; fi
    if [ ! -e "$kafka_lib/.complete" ] && ! has mvn; then echo maven; fi
}

fetch() {
    if [ -e "$kafka_lib/.complete" ]; then return 0; fi
    say "fetching Kafka's jars from Maven Central (43 MB)"
    rm -rf "$kafka_lib"
    mvn -B -q -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
        -DincludeScope=runtime "-DoutputDirectory=$kafka_lib" >&2 || die "kafka: mvn cannot bring the jars of $here/pom.xml"
    touch "$kafka_lib/.complete"
}

stop_signal() { echo KILL; }

# With a heap that is full a broker answers now and then: one that ends is started anew, or its end is told.
jvm=(java -Xmx256m -XX:+ExitOnOutOfMemoryError -XX:+UseSerialGC -XX:TieredStopAtLevel=1
    "-Dlog4j2.configurationFile=file:$here/log4j2.properties" -cp "$kafka_lib/*")

# Topics that tests left would fill the heap in the end.
forget() { rm -rf "$dir/data" "$dir"/[123]/data; }

# Small, and quick to notice that a broker or a consumer is gone.
lean() {
    cat <<'PROPERTIES'
process.roles=broker,controller
controller.listener.names=CONTROLLER
auto.create.topics.enable=false
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
group.consumer.heartbeat.interval.ms=500
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
log.cleaner.dedupe.buffer.size=2097152
log.segment.bytes=67108864
num.network.threads=1
num.io.threads=2
background.threads=2
PROPERTIES
}

format() { # format FOLDER [arguments]: its data folder, once
    local folder=$1 cluster
    shift
    if [ -e "$folder/data/meta.properties" ]; then return 0; fi
    mkdir -p "$folder/data"
    cluster=$(cat "$dir/cluster-id" 2>/dev/null) || {
        # 16 bytes as URL-safe base64; it must not begin with `-`.
        cluster="o$(openssl rand -base64 16 | tr '+/' 'AB' | cut -c2-22)"
        echo "$cluster" >"$dir/cluster-id"
    }
    "${jvm[@]}" kafka.tools.StorageTool format -t "$cluster" -c "$folder/server.properties" "$@" >>"$folder/format.log" 2>&1 ||
        { tail -n 5 "$folder/format.log" >&2; return 1; }
}
