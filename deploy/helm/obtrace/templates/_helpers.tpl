{{/* Names, labels, and what the pods of roles and of the migration have in common. */}}

{{- define "obtrace.name" -}}
{{- default (ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name)) .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "obtrace.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "obtrace.labels" -}}
{{ include "obtrace.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "obtrace.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "obtrace.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "obtrace.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The roles that are on, each with the defaults below what it says itself, as JSON: {"roles": [{name, ...}]}. */}}
{{- define "obtrace.roles" -}}
{{- $roles := list -}}
{{- range $name, $given := .Values.roles -}}
{{- $role := mergeOverwrite (deepCopy $.Values.defaults) (deepCopy ($given | default dict)) -}}
{{- if $role.enabled -}}
{{- $auto := $role.autoscaling -}}
{{- if gt (int $auto.min) (int $auto.max) -}}
{{- fail (printf "roles.%s.autoscaling: min %d is above max %d" $name (int $auto.min) (int $auto.max)) -}}
{{- end -}}
{{- if and (eq $auto.by "lag") (not (and $auto.topics $auto.consumerGroup)) -}}
{{- fail (printf "roles.%s.autoscaling: by lag needs topics and consumerGroup" $name) -}}
{{- end -}}
{{- if and (eq $auto.by "external") (not (and $auto.metric $auto.target)) -}}
{{- fail (printf "roles.%s.autoscaling: by external needs metric and target" $name) -}}
{{- end -}}
{{- $roles = append $roles (merge (dict "name" $name) $role) -}}
{{- end -}}
{{- end -}}
{{- dict "roles" $roles | toJson -}}
{{- end -}}

{{/* Variables: plain ones, then those from Secrets. Takes a list of the root, plain ones and Secrets. */}}
{{- define "obtrace.env" -}}
{{- $root := index . 0 -}}
- {name: OBTRACE_DATA_DIR, value: /var/lib/obtrace}
- {name: OBTRACE__INGEST__OTLP_GRPC, value: "0.0.0.0:4317"}
- {name: OBTRACE__INGEST__OTLP_HTTP, value: "0.0.0.0:4318"}
- {name: OBTRACE__SERVE__HTTP, value: "0.0.0.0:8080"}
- {name: OBTRACE__SUPERVISION__SHUTDOWN_BUDGET, value: {{ printf "%ds" (int $root.Values.shutdownBudgetSeconds) | quote }}}
{{- range $name, $value := mergeOverwrite (deepCopy $root.Values.env) (index . 1) }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- range $name, $secret := mergeOverwrite (deepCopy $root.Values.secrets) (index . 2) }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef: {name: {{ $secret.name }}, key: {{ $secret.key }}}
{{- end }}
{{- end -}}

{{- define "obtrace.mounts" -}}
- {name: config, mountPath: /etc/obtrace/config, readOnly: true}
- {name: data, mountPath: /var/lib/obtrace}
- {name: tmp, mountPath: /tmp}
{{- range .Values.secretFiles }}
- {name: {{ printf "secret-%s" . | trunc 63 | trimSuffix "-" }}, mountPath: /etc/obtrace/secrets/{{ . }}, readOnly: true}
{{- end }}
{{- end -}}

{{/* Volumes; takes a list of the root and the ConfigMap's name. */}}
{{- define "obtrace.volumes" -}}
{{- $root := index . 0 -}}
- name: config
  configMap: {name: {{ index . 1 }}}
- name: data
  emptyDir: {sizeLimit: 2Gi}
- name: tmp
  emptyDir: {sizeLimit: 256Mi}
{{- range $root.Values.secretFiles }}
- name: {{ printf "secret-%s" . | trunc 63 | trimSuffix "-" }}
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{- define "obtrace.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "obtrace.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}
