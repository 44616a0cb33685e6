// The official Go client against a running name server: one scenario per call, one JSON line of what it saw.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/admin"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
)

type seen struct {
	Sent      []string `json:"sent"`
	Received  []string `json:"received"`
	Bodies    []string `json:"bodies"`
	Reconsume []int32  `json:"reconsume"`
	Topics    []string `json:"topics"`
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	nameServer, topic, group := os.Args[1], os.Args[2], os.Args[3]
	var result seen

	tool, err := admin.NewAdmin(admin.WithResolver(primitive.NewPassthroughResolver([]string{nameServer})))
	check(err)
	clusterAddr := os.Args[4]
	check(tool.CreateTopic(context.Background(), admin.WithTopicCreate(topic), admin.WithBrokerAddrCreate(clusterAddr)))
	// this client looks for the retry topic's route before its first heartbeat, and again only after 30 s: have it there already
	check(tool.CreateTopic(context.Background(), admin.WithTopicCreate("%RETRY%"+group), admin.WithBrokerAddrCreate(clusterAddr)))
	topics, err := tool.FetchAllTopicList(context.Background())
	check(err)
	for _, name := range topics.TopicList {
		if name == topic {
			result.Topics = append(result.Topics, name)
		}
	}
	check(tool.Close())

	p, err := rocketmq.NewProducer(producer.WithNameServer([]string{nameServer}), producer.WithGroupName("go_producer"), producer.WithRetry(2))
	check(err)
	check(p.Start())
	keep := func(r *primitive.SendResult) {
		if r.Status != primitive.SendOK {
			check(fmt.Errorf("send: %v", r))
		}
		result.Sent = append(result.Sent, r.MsgID)
	}
	for i := 0; i < 20; i++ {
		m := primitive.NewMessage(topic, []byte(fmt.Sprintf("sync-%d", i)))
		m.WithTag("red").WithKeys([]string{fmt.Sprintf("k%d", i)})
		r, err := p.SendSync(context.Background(), m)
		check(err)
		keep(r)
	}
	var wait sync.WaitGroup
	var lock sync.Mutex
	for i := 0; i < 20; i++ {
		wait.Add(1)
		m := primitive.NewMessage(topic, []byte(fmt.Sprintf("async-%d", i)))
		m.WithTag("red")
		check(p.SendAsync(context.Background(), func(ctx context.Context, r *primitive.SendResult, err error) {
			defer wait.Done()
			check(err)
			lock.Lock()
			keep(r)
			lock.Unlock()
		}, m))
	}
	wait.Wait()
	var batch []*primitive.Message
	for i := 0; i < 10; i++ {
		m := primitive.NewMessage(topic, []byte(fmt.Sprintf("batch-%d", i)))
		m.WithTag("red")
		batch = append(batch, m)
	}
	r, err := p.SendSync(context.Background(), batch...)
	check(err)
	keep(r)
	check(p.SendOneWay(context.Background(), primitive.NewMessage(topic, []byte("oneway")).WithTag("red")))
	blue := primitive.NewMessage(topic, []byte("filtered out"))
	blue.WithTag("blue")
	r, err = p.SendSync(context.Background(), blue)
	check(err)
	keep(r)

	c, err := rocketmq.NewPushConsumer(consumer.WithNameServer([]string{nameServer}), consumer.WithGroupName(group),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset), consumer.WithMaxReconsumeTimes(3))
	check(err)
	want := 51 + 1
	done := make(chan bool, 1)
	check(c.Subscribe(topic, consumer.MessageSelector{Type: consumer.TAG, Expression: "red"}, func(ctx context.Context, ms ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		lock.Lock()
		defer lock.Unlock()
		for _, m := range ms {
			result.Received = append(result.Received, m.MsgId)
			result.Bodies = append(result.Bodies, string(m.Body))
			if m.ReconsumeTimes > 0 {
				result.Reconsume = append(result.Reconsume, m.ReconsumeTimes)
			}
			if len(result.Received) == want {
				done <- true
			}
			if string(m.Body) == "sync-7" && m.ReconsumeTimes == 0 {
				return consumer.ConsumeRetryLater, nil
			}
		}
		return consumer.ConsumeSuccess, nil
	}))
	check(c.Start())
	select {
	case <-done:
	case <-time.After(60 * time.Second):
	}
	lock.Lock()
	out, _ := json.Marshal(result)
	lock.Unlock()
	fmt.Println(string(out))
	check(c.Shutdown())
	check(p.Shutdown())
}
