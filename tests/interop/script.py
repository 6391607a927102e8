"""The `ovn-nbctl` script that every kind of server must turn into the same logical flows."""

NETWORK = """
    set nb_global . options:mac_prefix='"0a:00:00"' options:svc_monitor_mac='"0a:00:00:00:00:01"'
    ls-add web
    ls-add app
    ls-add outside
    lsp-add web web1
    lsp-set-addresses web1 '00:00:00:00:01:01 10.0.1.11'
    lsp-set-port-security web1 '00:00:00:00:01:01 10.0.1.11'
    lsp-add web web2
    lsp-set-addresses web2 '00:00:00:00:01:02 10.0.1.12'
    lsp-add app app1
    lsp-set-addresses app1 '00:00:00:00:02:01 10.0.2.21 fd00:2::21'
    lsp-add app app2
    lsp-set-addresses app2 dynamic
    set logical_switch app other_config:subnet=10.0.2.0/24
    lsp-set-enabled app1 enabled
    lr-add gateway
    set logical_router gateway options:chassis=hv1
    lrp-add gateway gateway-web 00:00:00:00:ff:01 10.0.1.1/24
    lrp-add gateway gateway-app 00:00:00:00:ff:02 10.0.2.1/24 fd00:2::1/64
    lrp-add gateway gateway-outside 00:00:00:00:ff:03 172.16.0.1/24
    lsp-add web web-gateway
    lsp-set-type web-gateway router
    lsp-set-addresses web-gateway router
    lsp-set-options web-gateway router-port=gateway-web
    lsp-add app app-gateway
    lsp-set-type app-gateway router
    lsp-set-addresses app-gateway router
    lsp-set-options app-gateway router-port=gateway-app
    lsp-add outside outside-gateway
    lsp-set-type outside-gateway router
    lsp-set-addresses outside-gateway router
    lsp-set-options outside-gateway router-port=gateway-outside
    lsp-add outside outside-localnet
    lsp-set-type outside-localnet localnet
    lsp-set-addresses outside-localnet unknown
    lsp-set-options outside-localnet network_name=physnet
    lr-route-add gateway 0.0.0.0/0 172.16.0.254
    lr-route-add gateway 192.168.0.0/16 10.0.1.12
    lr-policy-add gateway 100 ip4.src==10.0.1.99 reroute 172.16.0.253
    lr-nat-add gateway snat 172.16.0.1 10.0.0.0/8
    lr-nat-add gateway dnat_and_snat 172.16.0.11 10.0.1.11
    pg-add servers web1 web2
    create address_set name=trusted addresses='"10.0.2.0/24","172.16.0.0/24"'
    acl-add servers to-lport 1001 'outport == @servers && ip4.src == $trusted' allow-related
    acl-add servers to-lport 1000 'outport == @servers && ip' drop
    --log --severity=info --name=ssh acl-add web from-lport 1002 tcp.dst==22 reject
    lb-add vip 172.16.0.100:80 10.0.1.11:8080,10.0.1.12:8080 tcp
    lb-add inner 10.0.9.9 10.0.2.21
    lr-lb-add gateway vip
    ls-lb-add web vip
    ls-lb-add app inner
    --id=@options create dhcp_options cidr=10.0.1.0/24 options:server_id=10.0.1.1 \
options:server_mac='"00:00:00:00:ff:01"' options:lease_time=3600 options:router=10.0.1.1 \
-- set logical_switch_port web1 dhcpv4_options=@options
    --id=@name create dns records:web1.example=10.0.1.11 -- set logical_switch web dns_records=@name
    qos-add web to-lport 1000 ip4 dscp=10
    meter-add slow drop 10 kbps
"""
