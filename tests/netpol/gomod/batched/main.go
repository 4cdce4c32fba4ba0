// Command batched is `cyclonus generate` with one exec for all the questions of a Pod.
//
// The cases, what is right, the comparison and the report are cyclonus' own. `cyclonus generate` makes an exec for each of 324 connections
// after each change, through the API server. Its package worker asks in batches, but in v0.5.6 no flag leads there, and it wants a
// program /worker in the Pods. Here the Pods' shell does what that program does.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mattfenwick/cyclonus/pkg/connectivity"
	"github.com/mattfenwick/cyclonus/pkg/connectivity/probe"
	"github.com/mattfenwick/cyclonus/pkg/generator"
	"github.com/mattfenwick/cyclonus/pkg/kube"
	"github.com/mattfenwick/cyclonus/pkg/utils"
	"github.com/mattfenwick/cyclonus/pkg/worker"
	v1 "k8s.io/api/core/v1"
)

var namespaces, pods, ports = []string{"x", "y", "z"}, []string{"a", "b", "c"}, []int{80, 81}

func main() {
	include := flag.String("include", "", "tags with commas between them; without it, all cases")
	names := flag.String("protocols", "TCP,UDP,SCTP", "protocols that the Pods serve")
	minutes := flag.Float64("minutes", 24*60, "no case is begun after so many")
	report := flag.String("junit", "", "file for the report")
	flag.Parse()

	client, err := kube.NewKubernetesForContext("")
	utils.DoOrDie(err)
	cluster := shell{client}
	var protocols []v1.Protocol
	for _, name := range strings.Split(*names, ",") {
		protocols = append(protocols, v1.Protocol(name))
	}
	resources, err := probe.NewDefaultResources(cluster, namespaces, pods, ports, protocols, nil, 300, true, "")
	utils.DoOrDie(err)
	interpreter := connectivity.NewInterpreter(cluster, resources, &connectivity.InterpreterConfig{
		ResetClusterBeforeTestCase:       true,
		VerifyClusterStateBeforeTestCase: true,
		KubeProbeRetries:                 2,
		PerturbationWaitSeconds:          3,
		BatchJobs:                        true,
		IgnoreLoopback:                   true, // "a Pod cannot block access to itself"; cyclonus does not know that sentence
	})
	last, err := resources.GetPod("z", "c")
	utils.DoOrDie(err)
	var tags []string
	if *include != "" {
		tags = strings.Split(*include, ",")
	}
	utils.DoOrDie(generator.ValidateTags(tags))
	cases := generator.NewTestCaseGenerator(true, last.IP, namespaces, tags, nil).GenerateTestCases()
	// Mixed, and every time in the same way: where time ends before the cases do, what was tried is of all kinds.
	rand.New(rand.NewSource(1)).Shuffle(len(cases), func(i, j int) { cases[i], cases[j] = cases[j], cases[i] })

	printer := &connectivity.Printer{JunitResultsFile: *report, IgnoreLoopback: true}
	end := time.Now().Add(time.Duration(*minutes * float64(time.Minute)))
	var broken error
	for n, each := range cases {
		if broken != nil || time.Now().After(end) {
			break
		}
		fmt.Printf("case %d of %d: %s\n", n+1, len(cases), each.Description)
		result := interpreter.ExecuteTestCase(each)
		if broken = result.Err; broken == nil {
			printer.PrintTestCaseResult(result)
		}
	}
	printer.PrintSummary()
	for _, namespace := range namespaces {
		utils.DoOrDie(cluster.DeleteNamespace(namespace))
	}
	fmt.Printf("begun %d of %d cases\n", len(printer.Results), len(cases))
	if broken != nil {
		fmt.Printf("stopped: %+v\n", broken)
		os.Exit(1)
	}
}

// shell answers what is asked of a program /worker by a shell script in the same container.
type shell struct{ kube.IKubernetes }

// One connection: to be made for TCP and SCTP, and for UDP to be answered. bash asks, since starting agnhost each time takes ten times as long.
const ask = `case $3 in
tcp) : <>"/dev/tcp/$1/$2" ;;
udp) exec 3<>"/dev/udp/$1/$2"; echo >&3; read -r -t 2 -N 1 <&3 ;;
sctp) /agnhost connect "$1:$2" --timeout=2s --protocol=sctp ;;
esac 2>/dev/null && echo "answer-$0"`

const script = `printf '%s' "$1" | xargs -n 4 -P 3 timeout 2 bash -c "$2"; :`

func (s shell) ExecuteRemoteCommand(namespace, pod, container string, command []string) (string, string, error, error) {
	var batch worker.Batch
	if err := json.Unmarshal([]byte(command[len(command)-1]), &batch); err != nil {
		return "", "", nil, err
	}
	var questions strings.Builder
	for n, each := range batch.Requests {
		fmt.Fprintf(&questions, "%d %s %d %s\n", n, each.Host, each.Port, strings.ToLower(string(each.Protocol)))
	}
	words := []string{"sh", "-c", script, "sh", questions.String(), ask}
	stdout, stderr, failed, err := s.IKubernetes.ExecuteRemoteCommand(namespace, pod, container, words)
	if err != nil || failed != nil {
		return stdout, stderr, failed, err
	}
	answered := map[string]bool{}
	for _, word := range strings.Fields(stdout) {
		answered[word] = true
	}
	var results []*worker.Result
	for n, each := range batch.Requests {
		result := &worker.Result{Request: each}
		if !answered["answer-"+strconv.Itoa(n)] {
			result.Error = "no answer"
		}
		results = append(results, result)
	}
	said, err := json.Marshal(results)
	return string(said), "", nil, err
}
