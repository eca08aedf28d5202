# One Kafka broker (KRaft): a listener in clear, one with SASL (PLAIN and SCRAM-SHA-256).

# shellcheck source=kafka-common.sh
. "$here/kafka-common.sh"

sasl_user=obtrace sasl_password=obtrace-test
parts() { echo broker; }

launch() {
    local plain sasl controller login=org.apache.kafka.common.security
    plain=$(port main) sasl=$(port sasl) controller=$(port controller)
    {
        lean
        cat <<PROPERTIES
node.id=1
listeners=PLAINTEXT://127.0.0.1:$plain,SASL_PLAINTEXT://127.0.0.1:$sasl,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl_plaintext.plain.sasl.jaas.config=$login.plain.PlainLoginModule required user_$sasl_user="$sasl_password";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=$login.scram.ScramLoginModule required;
controller.quorum.bootstrap.servers=127.0.0.1:$controller
log.dirs=$dir/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
PROPERTIES
    } >"$dir/server.properties"
    format "$dir" --standalone --add-scram "SCRAM-SHA-256=[name=$sasl_user,password=$sasl_password]" || return 1
    spawn broker "${jvm[@]}" kafka.Kafka "$dir/server.properties"
}

ready() { python3 "$here/kafka_ready.py" 1 "127.0.0.1:$(port main)"; }

lines() {
    echo "OBTRACE_TEST_KAFKA=127.0.0.1:$(port main)"
    echo "OBTRACE_TEST_KAFKA_SASL=127.0.0.1:$(port sasl)"
    echo "OBTRACE_TEST_KAFKA_SASL_USER=$sasl_user"
    echo "OBTRACE_TEST_KAFKA_SASL_PASSWORD=$sasl_password"
}
